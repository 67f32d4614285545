// Codes and scales of least squared error. Included once per instruction set.

/// Scales that are tried for each group, in units of the one that just reaches the largest weight.
constexpr float TRIED[] = {0.8f, 0.85f, 0.9f, 0.95f, 1.0f, 1.05f, 1.1f, 1.2f};

inline float round_to_bf16(float value, uint16_t* stored) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    *stored = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    bits = static_cast<uint32_t>(*stored) << 16;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

/// The value of `code` nearest to each lane, as a walk up the code's 15 steps: `from[0]` and then every `rise` whose
/// boundary lies below.
struct Steps {
    F first, rise[15], boundary[15];
    explicit Steps(const float* from) : first(set(from[0])) {
        for (int i = 0; i < 15; ++i) {
            rise[i] = set(from[i + 1] - from[i]);
            boundary[i] = set((from[i] + from[i + 1]) / 2);
        }
    }
    F value(F x) const {
        F y = first;
        for (int i = 0; i < 15; ++i) y = y + where_negative(boundary[i] - x, rise[i], set(0.0f));
        return y;
    }
    F index(F x) const {
        F y = set(0.0f);
        for (int i = 0; i < 15; ++i) y = y + where_negative(boundary[i] - x, set(1.0f), set(0.0f));
        return y;
    }
};

/// The scale of least squared error of 32 weights in q4, each square times its importance.
inline float best_scale(const float* weights, const float* importance, const Steps& steps, float reach) {
    const F w[2] = {load(weights), load(weights + 16)}, counts[2] = {load(importance), load(importance + 16)};
    const float most = largest(max(abs(w[0]), abs(w[1])));
    float best = 0, scale = 0;
    for (float sign : {1.0f, -1.0f})
        for (float tried : TRIED) {
            const F inverse = set(most > 0 ? sign * tried * reach / most : 0.0f);
            F along = set(0.0f), square = set(0.0f);
            for (int part = 0; part < 2; ++part) {
                const F value = steps.value(w[part] * inverse), counted = counts[part] * value;
                along = along + w[part] * counted;
                square = square + value * counted;
            }
            const float total = sum(along), gain = total * total / sum(square);
            if (gain > best) best = gain, scale = total / sum(square);
        }
    return scale;
}

/// Scales of q4, first each as it is and then in steps of the row's largest.
inline void quantize_q4(const float* row, const float* importance, int groups, const float* code, uint8_t* codes,
                        uint8_t* scales) {
    const Steps steps(code);
    const float reach = __builtin_fabsf(code[0]) > code[15] ? -code[0] : code[15];
    float* found = static_cast<float*>(__builtin_malloc(2 * groups * sizeof(float)));
    float most = 0;
    for (int half = 0; half < 2 * groups; ++half) {
        found[half] = best_scale(row + 32 * half, importance + 32 * half, steps, reach);
        most = __builtin_fabsf(found[half]) > most ? __builtin_fabsf(found[half]) : most;
    }
    const float step = round_to_bf16(most / 127, reinterpret_cast<uint16_t*>(scales));
    for (int half = 0; half < 2 * groups; ++half) {
        float in_steps = step > 0 ? __builtin_rintf(found[half] / step) : 0.0f;
        if (in_steps == 0) in_steps = (found[half] > 0) - (found[half] < 0);
        in_steps = in_steps > 127 ? 127 : in_steps < -127 ? -127 : in_steps;
        reinterpret_cast<int8_t*>(scales)[2 + half] = static_cast<int8_t>(in_steps);
        const float kept = step * in_steps;
        const F inverse = set(kept != 0 ? 1 / kept : 0.0f);
        for (int i = 0; i < 32; i += 16)
            to_int8(reinterpret_cast<int8_t*>(codes) + 32 * half + i, round(steps.index(load(row + 32 * half + i) * inverse)));
    }
    __builtin_free(found);
}

void quantize(const float* row, const float* importance, int groups, Format format, const float* code, uint8_t* codes,
              uint8_t* scales) {
    if (format == Format::q4) return quantize_q4(row, importance, groups, code, codes, scales);
    for (int group = 0; group < groups; ++group, row += GROUP, codes += GROUP) {
        F size = set(0.0f);
        for (int i = 0; i < GROUP; i += 16) size = max(size, abs(load(row + i)));
        const float kept = round_to_bf16(largest(size) / 127, reinterpret_cast<uint16_t*>(scales) + group);
        const F inverse = set(kept != 0 ? 1 / kept : 0.0f);
        for (int i = 0; i < GROUP; i += 16) {
            const F x = min(max(load(row + i) * inverse, set(-127.0f)), set(127.0f));
            to_int8(reinterpret_cast<int8_t*>(codes) + i, round(x) + set(int32_t{128}));
        }
    }
}
