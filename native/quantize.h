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

void quantize(const float* weights, int groups, Format format, const float* code, uint8_t* codes, uint16_t* scales) {
    const Steps steps(code);
    float reach = 0;
    for (int i = 0; i < 16; ++i) reach = __builtin_fabsf(code[i]) > reach ? __builtin_fabsf(code[i]) : reach;
    for (int group = 0; group < groups; ++group, weights += GROUP, codes += GROUP) {
        F w[4];
        for (int i = 0; i < 4; ++i) w[i] = load(weights + 16 * i);
        const float most = largest(max(max(abs(w[0]), abs(w[1])), max(abs(w[2]), abs(w[3]))));
        float scale = most / 127;
        if (format == Format::q4) {
            float best = scale = 0;
            for (float sign : {1.0f, -1.0f})
                for (float tried : TRIED) {
                    const F inverse = set(most > 0 ? sign * tried * reach / most : 0.0f);
                    F along = set(0.0f), square = set(0.0f);
                    for (int i = 0; i < 4; ++i) {
                        const F value = steps.value(w[i] * inverse);
                        along = along + w[i] * value;
                        square = square + value * value;
                    }
                    const float total = sum(along), gain = total * total / sum(square);
                    if (gain > best) best = gain, scale = total / sum(square);
                }
        }
        const float kept = round_to_bf16(scale, scales + group);
        const F inverse = set(kept != 0 ? 1 / kept : 0.0f);
        for (int i = 0; i < 4; ++i) {
            const F x = w[i] * inverse;
            const I found = format == Format::q4 ? round(steps.index(x))
                                                 : round(min(max(x, set(-127.0f)), set(127.0f))) + set(int32_t{128});
            to_int8(reinterpret_cast<int8_t*>(codes) + 16 * i, found);
        }
    }
}
