// Kernels for single rows: norms, activations, and packing for the matrix kernels. Included once per instruction set.

void norm(const float* x, const float* weight, const float* bias, float eps, int width, float* out) {
    const int vectors_end = width / 16 * 16;
    float mean = 0;
    if (bias) {
        F total = set(0.0f);
        for (int i = 0; i < vectors_end; i += 16) total = total + load(x + i);
        mean = sum(total);
        for (int i = vectors_end; i < width; ++i) mean += x[i];
        mean /= width;
    }
    F squares = set(0.0f);
    for (int i = 0; i < vectors_end; i += 16) {
        const F centred = load(x + i) - set(mean);
        squares = squares + centred * centred;
    }
    float variance = sum(squares);
    for (int i = vectors_end; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / __builtin_sqrtf(variance / width + eps);
    for (int i = 0; i < vectors_end; i += 16) {
        const F y = (load(x + i) - set(mean)) * set(inverse) * load(weight + i);
        store(out + i, bias ? y + load(bias + i) : y);
    }
    for (int i = vectors_end; i < width; ++i) out[i] = (x[i] - mean) * inverse * weight[i] + (bias ? bias[i] : 0);
}

inline F sigmoid(F x) { return set(1.0f) / (set(1.0f) + exp(set(0.0f) - x)); }

/// Abramowitz and Stegun, 7.1.26, with t = 1 / (1 + p |x|). The error is at most 1.5e-7.
inline F erf(F x) {
    const F size = abs(x), t = set(1.0f) / (set(1.0f) + set(0.3275911f) * size);
    F y = set(1.061405429f);
    for (float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) y = y * t + set(c);
    y = set(1.0f) - y * t * exp(set(0.0f) - x * x);
    return where_negative(x, set(0.0f) - y, y);
}

inline F activate(F x, Activation activation) {
    switch (activation) {
        case Activation::gelu_tanh:  // 0.5 (1 + tanh u) = sigmoid(2 u)
            return x * sigmoid(set(1.5957691216f) * (x + set(0.044715f) * x * x * x));
        case Activation::gelu: return set(0.5f) * x * (set(1.0f) + erf(x * set(0.70710678119f)));
        case Activation::relu: return max(set(0.0f), x);  // of NaN the second
        case Activation::silu: return x * sigmoid(x);
        case Activation::none: break;
    }
    return x;
}

void pack(const Source& source, int token, int first_group, int last_group, Input& out) {
    const Tile tile(out, token / TILE);
    for (int group = first_group; group < last_group; ++group) {
        const size_t at = size_t(tile.first) * out.groups + size_t(group) * tile.size + token % TILE;
        F x[4];
        for (int i = 0; i < 4; ++i) {
            const int column = group * GROUP + 16 * i;
            x[i] = activate(load(source.a + column), source.activation);
            if (source.b) x[i] = x[i] * load(source.b + column);
            if (source.smoothing) x[i] = x[i] * load(source.smoothing + column);
        }
        if (out.format == Format::f32) {
            for (int i = 0; i < 4; ++i) store(reinterpret_cast<float*>(out.data) + at * GROUP + 16 * i, x[i]);
        } else if (out.format == Format::bf16) {
            for (int i = 0; i < 4; ++i) to_bf16(reinterpret_cast<uint16_t*>(out.data) + at * GROUP + 16 * i, x[i]);
        } else {
            int8_t* to = reinterpret_cast<int8_t*>(out.data) + at * GROUP;
            const float max_size = largest(max(max(abs(x[0]), abs(x[1])), max(abs(x[2]), abs(x[3]))));
            const F inverse = set(max_size > 0 ? 127.0f / max_size : 0.0f);
            F poison = set(0.0f);  // becomes NaN with any number that is not finite, which max and int8 may lose
            for (int i = 0; i < 4; ++i) {
                to_int8(to + 16 * i, round(x[i] * inverse));
                poison = poison + x[i] * set(0.0f);
            }
            out.scales[at] = max_size / 127.0f + sum(poison);
            for (int half = 0; half < 2; ++half) {
                int32_t total = 0;
                for (int i = 0; i < HALF_GROUP; ++i) total += to[half * HALF_GROUP + i];
                out.offsets[2 * at + half * tile.size - token % TILE] = -128 * total;
            }
        }
    }
}

/// A float keeps the precision of a sum of so few terms as SCORE_COLUMNS.
Partial partial(const float* logits, int size) {
    const int end = size / 16 * 16;
    alignas(64) float rest[16];
    for (int i = 0; i < 16; ++i) rest[i] = end + i < size ? logits[end + i] : logits[0];
    F maxima = load(rest);
    for (int i = 0; i < end; i += 16) maxima = max(maxima, load(logits + i));
    const float largest_one = largest(maxima);
    const F maximum = set(largest_one);
    F sums = set(0.0f);
    F poison = set(0.0f);  // becomes NaN with any logit that is no finite number, which max and exp may lose
    for (int i = 0; i < end; i += 16) {
        const F shifted = load(logits + i) - maximum;
        sums = sums + exp(shifted);
        poison = poison + shifted * set(0.0f);
    }
    F shifted = load(rest) - maximum;
    poison = poison + shifted * set(0.0f);
    shifted = exp(shifted);
    store(rest, shifted);
    for (int i = size - end; i < 16; ++i) rest[i] = 0;
    return {largest_one, sum(sums + load(rest) + poison)};
}

Likeliest likeliest(const float* logits, int size) {
    constexpr int RUN = 256;
    float best = -__builtin_inff();
    int run = 0;
    F poison = set(0.0f);
    float rest = 0;
    for (int from = 0; from < size; from += RUN) {
        const int to = from + RUN < size ? from + RUN : size, end = from + (to - from) / 16 * 16;
        float of_run = logits[from];
        if (end > from) {
            F maxima = load(logits + from);
            for (int i = from; i < end; i += 16) {
                maxima = max(maxima, load(logits + i));
                poison = poison + load(logits + i) * set(0.0f);
            }
            of_run = largest(maxima);
        }
        for (int i = end; i < to; ++i) {
            of_run = of_run > logits[i] ? of_run : logits[i];
            rest += logits[i] * 0.0f;
        }
        if (of_run > best) best = of_run, run = from;
    }
    int index = run;
    while (index < size - 1 && logits[index] != best) ++index;
    return {index, best, sum(poison) + rest == 0.0f};
}

/// Counts are exact: a lane has fewer than 2^24 tokens. Four sums at once, as each waits for its own last addition.
Mass mass(const float* keys, const float* masses, int size, float least) {
    constexpr int RUN = 4096;  // 64 floats in each lane of each sum
    double total = 0;
    int count = 0;
    F counts[4] = {set(0.0f), set(0.0f), set(0.0f), set(0.0f)};
    for (int from = 0; from < size; from += RUN) {
        const int to = from + RUN < size ? from + RUN : size, end = from + (to - from) / 64 * 64;
        F sums[4] = {set(0.0f), set(0.0f), set(0.0f), set(0.0f)};
        for (int i = from; i < end; i += 64)
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const F distance = load(keys + i + 16 * j) - set(least);
                sums[j] = sums[j] + where_negative(distance, set(0.0f), load(masses + i + 16 * j));
                counts[j] = counts[j] + where_negative(distance, set(0.0f), set(1.0f));
            }
        total += sum(sums[0] + sums[1] + (sums[2] + sums[3]));
        for (int i = end; i < to; ++i)
            if (keys[i] >= least) total += masses[i], ++count;
    }
    return {total, count + int(sum(counts[0] + counts[1] + (counts[2] + counts[3])))};
}

void weights(const float* logits, int size, float maximum, float factor, float* out) {
    const auto weight = [&](F x) {
        x = (x - set(maximum)) * set(factor);
        return where_negative(x + set(87.0f), set(0.0f), exp(x));
    };
    const int end = size / 16 * 16;
    for (int i = 0; i < end; i += 16) store(out + i, weight(load(logits + i)));
    if (end == size) return;
    alignas(64) float rest[16] = {};
    for (int i = end; i < size; ++i) rest[i - end] = logits[i];
    store(out + end, weight(load(rest)));
}
