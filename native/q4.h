// The format q4 (bluejay.gpt.quantization.q4). Included once per instruction set.

struct Q4 {
    template <int N, int M>
    static void multiply(const Matrix& matrix, int block, const uint8_t* input, const float* scales, const int32_t* offsets,
                         F (&total)[N][M]) {
        constexpr int H = tokens_at_once(2 * N, M);
        const uint8_t* w = matrix.block(block);
        const int8_t* x = reinterpret_cast<const int8_t*>(input);
        const Table table = load_table(matrix.codebook);
        F steps[N];
        for (int n = 0; n < N; ++n) steps[n] = from_bf16(reinterpret_cast<const uint16_t*>(matrix.block_scales(block + n)));
        for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK / 2, x += M * GROUP) {
            F low[N], high[N];
            for (int n = 0; n < N; ++n) {
                const uint8_t* in_steps = matrix.block_scales(block + n) + (1 + group) * Matrix::SCALE_BYTES;
                __builtin_prefetch(in_steps + PREFETCH_SCALE_BYTES);
                low[n] = steps[n] * from_int8(reinterpret_cast<const int8_t*>(in_steps));
                high[n] = steps[n] * from_int8(reinterpret_cast<const int8_t*>(in_steps) + BLOCK);
            }
            for (int h = 0; h < M; h += H) {
                I first[N][H], second[N][H];  // sums of the halves, whose codes are the low and the high nibbles
                for (int m = 0; m < H; ++m)
                    for (int n = 0; n < N; ++n) first[n][m] = start(offsets[h + m]), second[n][m] = start(offsets[M + h + m]);
                for (int k = 0; k < HALF_GROUP; k += 4) {
                    Bytes weights[N], other[N];
                    read_weights(matrix, w + k * BLOCK, weights, h == 0);
                    for (int n = 0; n < N; ++n) {
                        const Nibbles both = look_up(table, weights[n]);
                        weights[n] = both.low, other[n] = both.high;
                    }
                    add_products(weights, x + h * GROUP + k, first);
                    add_products(other, x + h * GROUP + HALF_GROUP + k, second);
                }
                add_scaled(first, low, scales + h, h, total);
                add_scaled(second, high, scales + h, h, total);
            }
            scales += M, offsets += 2 * M;
        }
    }
    static void unpack(const Matrix& matrix, int row, float* out) {
        const uint8_t *block = matrix.block(row / BLOCK), *scales = matrix.block_scales(row / BLOCK);
        const int lane = row % BLOCK;
        const float step = float_of_bf16(reinterpret_cast<const uint16_t*>(scales)[lane]);
        for (int i = 0; i < matrix.columns; ++i) {
            const int group = i / GROUP, half = i % GROUP / HALF_GROUP, column = i % HALF_GROUP;
            const uint8_t pair = block[size_t(group) * HALF_GROUP * BLOCK + column / 4 * 4 * BLOCK + 4 * lane + column % 4];
            const uint8_t* in_steps = scales + (1 + group) * Matrix::SCALE_BYTES + half * BLOCK;
            const int code = matrix.codebook[half ? pair >> 4 : pair & 15];
            out[i] = step * reinterpret_cast<const int8_t*>(in_steps)[lane] * (code - 128);
        }
    }
};

/// Rounds to the nearest value of a codebook: begins with the lowest and adds the difference to the next value for each
/// boundary between two values that lies below.
struct Rounding {
    F first, difference[15], boundary[15];
    explicit Rounding(const float* codebook) : first(set(codebook[0])) {
        for (int i = 0; i < 15; ++i) {
            difference[i] = set(codebook[i + 1] - codebook[i]);
            boundary[i] = set((codebook[i] + codebook[i + 1]) / 2);
        }
    }
    F value(F x) const {
        F y = first;
        for (int i = 0; i < 15; ++i) y = y + where_negative(boundary[i] - x, difference[i], set(0.0f));
        return y;
    }
    F index(F x) const {
        F y = set(0.0f);
        for (int i = 0; i < 15; ++i) y = y + where_negative(boundary[i] - x, set(1.0f), set(0.0f));
        return y;
    }
};

/// The scale of least squared error of half a group, each square multiplied by its importance. Candidates map the largest
/// weight to a multiple of `codebook_max`, with either sign.
inline float best_scale(const float* weights, const float* importance, const Rounding& rounding, const Codebook& codebook,
                        float codebook_max) {
    const F w[2] = {load(weights), load(weights + 16)}, counts[2] = {load(importance), load(importance + 16)};
    const float max_weight = largest(max(abs(w[0]), abs(w[1])));
    float best = 0, scale = 0;
    for (float sign : {1.0f, -1.0f})
        for (int i = 0; i < codebook.n_candidates; ++i) {
            const F inverse = set(max_weight > 0 ? sign * codebook.candidates[i] * codebook_max / max_weight : 0.0f);
            F dots = set(0.0f), squares = set(0.0f);
            for (int part = 0; part < 2; ++part) {
                const F value = rounding.value(w[part] * inverse), counted = counts[part] * value;
                dots = dots + w[part] * counted;
                squares = squares + value * counted;
            }
            const float dot = sum(dots), gain = dot * dot / sum(squares);
            if (gain > best) best = gain, scale = dot / sum(squares);
        }
    return scale;
}

/// Codes, and the step and scales in steps, of one row of groups. Equal to bluejay.gpt.quantization.q4.Q4.quantize_with_torch.
void quantize_q4(const float* row, const float* importance, int groups, const Codebook& codebook, uint8_t* codes,
                 uint8_t* scales) {
    const float *values = codebook.values, codebook_max = __builtin_fabsf(values[0]) > values[15] ? -values[0] : values[15];
    const Rounding rounding(values);
    float* exact = static_cast<float*>(__builtin_malloc(2 * groups * sizeof(float)));
    float max_scale = 0;
    for (int half = 0; half < 2 * groups; ++half) {
        const int at = HALF_GROUP * half;
        exact[half] = best_scale(row + at, importance + at, rounding, codebook, codebook_max);
        max_scale = __builtin_fabsf(exact[half]) > max_scale ? __builtin_fabsf(exact[half]) : max_scale;
    }
    const uint16_t stored = bf16_of_float(max_scale / 127);
    *reinterpret_cast<uint16_t*>(scales) = stored;
    const float step = float_of_bf16(stored);
    for (int half = 0; half < 2 * groups; ++half, row += HALF_GROUP, codes += HALF_GROUP) {
        float in_steps = step > 0 ? __builtin_rintf(exact[half] / step) : 0.0f;
        if (in_steps == 0) in_steps = (exact[half] > 0) - (exact[half] < 0);
        in_steps = in_steps > 127 ? 127 : in_steps < -127 ? -127 : in_steps;
        reinterpret_cast<int8_t*>(scales)[2 + half] = static_cast<int8_t>(in_steps);
        const float scale = step * in_steps;
        const F inverse = set(scale != 0 ? 1 / scale : 0.0f);
        for (int i = 0; i < HALF_GROUP; i += 16)
            to_int8(reinterpret_cast<int8_t*>(codes) + i, round(rounding.index(load(row + i) * inverse)));
    }
    __builtin_free(exact);
}
