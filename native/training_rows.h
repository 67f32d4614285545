// Kernels for single rows of a training step: norm, activation and loss, with gradients. Included for AVX-512 only.

inline F load_row(const float* x) { return load(x); }
inline F load_row(const Bf16* x) { return from_bf16(x); }
inline void store_row(float* to, F a) { store(to, a); }
inline void store_row(Bf16* to, F a) { to_bf16(to, a); }

struct Moments {
    F mean, inverse;
};
template <class X>
inline Moments moments(const X* x, bool centred, float eps, int width) {
    F total = set(0.0f), squares = set(0.0f);
    if (centred)
        for (int i = 0; i < width; i += 16) total = total + load_row(x + i);
    const F mean = set(sum(total) / width);
    for (int i = 0; i < width; i += 16) {
        const F difference = load_row(x + i) - mean;
        squares = squares + difference * difference;
    }
    return {mean, set(1.0f / __builtin_sqrtf(sum(squares) / width + eps))};
}

template <class X>
void norm_as(const NormRows& rows, Bf16* y) {
    const X* x = static_cast<const X*>(rows.x);
    for (int row = 0; row < rows.rows; ++row, x += rows.width, y += rows.width) {
        const Moments m = moments(x, rows.bias, rows.eps, rows.width);
        for (int i = 0; i < rows.width; i += 16) {
            const F scaled = (load_row(x + i) - m.mean) * m.inverse * load(rows.weight + i);
            to_bf16(y + i, rows.bias ? scaled + load(rows.bias + i) : scaled);
        }
    }
}
void norm_training(const NormRows& rows, Bf16* y) { rows.x_is_bf16 ? norm_as<Bf16>(rows, y) : norm_as<float>(rows, y); }

/// With the normed x called n, and g = dy * weight: dx = (g - mean(g) - n * mean(g * n)) / deviation. The root-mean-square
/// norm has no mean(g).
template <class X>
void norm_backward_as(const NormRows& rows, const Bf16* dy, X* dx, float* d_weight, float* d_bias) {
    const X* x = static_cast<const X*>(rows.x);
    for (int row = 0; row < rows.rows; ++row, x += rows.width, dx += rows.width, dy += rows.width) {
        const Moments m = moments(x, rows.bias, rows.eps, rows.width);
        F total = set(0.0f), dots = set(0.0f);
        for (int i = 0; i < rows.width; i += 16) {
            const F n = (load_row(x + i) - m.mean) * m.inverse, d = from_bf16(dy + i), g = d * load(rows.weight + i);
            total = total + g;
            dots = dots + g * n;
            store(d_weight + i, load(d_weight + i) + d * n);
            if (rows.bias) store(d_bias + i, load(d_bias + i) + d);
        }
        const F mean = set(rows.bias ? sum(total) / rows.width : 0.0f), slope = set(sum(dots) / rows.width);
        for (int i = 0; i < rows.width; i += 16) {
            const F n = (load_row(x + i) - m.mean) * m.inverse, g = from_bf16(dy + i) * load(rows.weight + i);
            store_row(dx + i, (g - mean - n * slope) * m.inverse);
        }
    }
}
void norm_backward(const NormRows& rows, const Bf16* dy, void* dx, float* d_weight, float* d_bias) {
    if (rows.x_is_bf16)
        norm_backward_as(rows, dy, static_cast<Bf16*>(dx), d_weight, d_bias);
    else
        norm_backward_as(rows, dy, static_cast<float*>(dx), d_weight, d_bias);
}

inline F derivative(F x, Activation activation) {
    switch (activation) {
        case Activation::gelu_tanh: {
            const F square = x * x, s = sigmoid(x * (set(1.5957691216f) + set(0.071354816f) * square));
            return s + x * s * (set(1.0f) - s) * (set(1.5957691216f) + set(0.21406445f) * square);
        }
        case Activation::gelu:
            return set(0.5f) * (set(1.0f) + erf(x * set(0.70710678119f))) +
                   x * set(0.3989422804f) * exp(set(-0.5f) * x * x);
        case Activation::relu: return where_negative(set(0.0f) - x, set(1.0f), set(0.0f));
        case Activation::silu: {
            const F s = sigmoid(x);
            return s + x * s * (set(1.0f) - s);
        }
        case Activation::none: break;
    }
    return set(1.0f);
}

/// Calls `each(i, n)` for i = 0, 16, ...; n is 16, or less at the end.
template <class Each>
inline void for_each_16(size_t count, const Each& each) {
    size_t i = 0;
    for (; i + 16 <= count; i += 16) each(i, 16);
    if (i < count) each(i, int(count - i));
}
inline F load_partial(const Bf16* from, int count) {
    alignas(64) Bf16 padded[16] = {};
    if (count == 16) return from_bf16(from);
    for (int i = 0; i < count; ++i) padded[i] = from[i];
    return from_bf16(padded);
}
inline void store_partial(Bf16* to, F a, int count) {
    alignas(64) Bf16 padded[16];
    if (count == 16) return to_bf16(to, a);
    to_bf16(padded, a);
    for (int i = 0; i < count; ++i) to[i] = padded[i];
}

template <Activation A>
void activate_as(const Bf16* x, size_t count, Bf16* y) {
    for_each_16(count, [&](size_t i, int n) { store_partial(y + i, activate(load_partial(x + i, n), A), n); });
}
template <Activation A>
void activate_backward_as(const Bf16* x, const Bf16* dy, size_t count, Bf16* dx) {
    for_each_16(count, [&](size_t i, int n) {
        store_partial(dx + i, load_partial(dy + i, n) * derivative(load_partial(x + i, n), A), n);
    });
}
#define BLUEJAY_EACH_ACTIVATION(CALL)                                  \
    switch (activation) {                                              \
        case Activation::gelu_tanh: return CALL(Activation::gelu_tanh); \
        case Activation::gelu: return CALL(Activation::gelu);          \
        case Activation::relu: return CALL(Activation::relu);          \
        case Activation::silu: return CALL(Activation::silu);          \
        case Activation::none: return CALL(Activation::none);          \
    }
void activate_training(Activation activation, const Bf16* x, size_t count, Bf16* y) {
#define BLUEJAY_CALL(A) activate_as<A>(x, count, y)
    BLUEJAY_EACH_ACTIVATION(BLUEJAY_CALL)
#undef BLUEJAY_CALL
}
void activate_backward(Activation activation, const Bf16* x, const Bf16* dy, size_t count, Bf16* dx) {
#define BLUEJAY_CALL(A) activate_backward_as<A>(x, dy, count, dx)
    BLUEJAY_EACH_ACTIVATION(BLUEJAY_CALL)
#undef BLUEJAY_CALL
}
#undef BLUEJAY_EACH_ACTIVATION

/// Cross-entropy, lse - logit[target]. The gradient includes that of the z-loss, z * lse^2 (PaLM, section 5).
double loss(const LossRows& rows, Bf16* logits, float* d_bias) {
    const int V = rows.vocabulary;
    double total = 0;
    for (int row = 0; row < rows.rows; ++row, logits += V) {
        const auto logit = [&](size_t i, int n) {
            const F x = load_partial(logits + i, n);
            if (!rows.bias) return x;
            if (n == 16) return x + load(rows.bias + i);
            alignas(64) float padded[16] = {};
            for (int j = 0; j < n; ++j) padded[j] = rows.bias[i + j];
            return x + load(padded);
        };
        const auto masked = [](F x, int n) {  // lanes after the end become so small that they have no effect
            alignas(64) float lane[16];
            store(lane, x);
            for (int j = n; j < 16; ++j) lane[j] = -1e30f;
            return load(lane);
        };
        F maxima = set(-1e30f), sums = set(0.0f);
        for_each_16(V, [&](size_t i, int n) { maxima = max(maxima, n == 16 ? logit(i, n) : masked(logit(i, n), n)); });
        const float maximum = largest(maxima);
        for_each_16(V, [&](size_t i, int n) {
            const F shifted = (n == 16 ? logit(i, n) : masked(logit(i, n), n)) - set(maximum);
            sums = sums + where_negative(shifted + set(80.0f), set(0.0f), exp(shifted));
        });
        const float lse = maximum + __builtin_logf(sum(sums));
        const float weight = rows.weights ? rows.weights[row] : 1.0f;
        const int target = int(rows.targets[row]);
        const float target_logit = float_of_bf16(logits[target]) + (rows.bias ? rows.bias[target] : 0.0f);
        total += double(weight) * (double(lse) - target_logit);
        const float scale = rows.scale * weight;
        const F factor = set(scale * (1 + 2 * rows.z_loss * lse));
        const F shift = set(lse);
        for_each_16(V, [&](size_t i, int n) {
            F gradient = exp(logit(i, n) - shift) * factor;
            if (size_t(target) - i < 16) {
                alignas(64) float lane[16];
                store(lane, gradient);
                lane[target - i] -= scale;
                gradient = load(lane);
            }
            store_partial(logits + i, gradient, n);
            if (!d_bias) return;
            if (n == 16) return store(d_bias + i, load(d_bias + i) + gradient);
            alignas(64) float lane[16];
            store(lane, gradient);
            for (int j = 0; j < n; ++j) d_bias[i + j] += lane[j];
        });
    }
    return total;
}
