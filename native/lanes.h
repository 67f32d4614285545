// Sixteen lanes of float or int32, the unit of all kernels: one register of AVX-512, two of AVX2, four of SSE or NEON.
//
// lanes_<isa>.h includes this file in its namespace after defining WIDTH, the number of lanes of a register. Each
// instruction set is compiled with its own flags, so the linker must not merge functions of two of them: everything is in
// the namespace, and nothing comes from the standard library.

constexpr int PARTS = 16 / WIDTH;
typedef float FloatRegister __attribute__((vector_size(4 * WIDTH)));
typedef int32_t IntRegister __attribute__((vector_size(4 * WIDTH)));
typedef float FloatRegisterUnaligned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

struct F {
    FloatRegister part[PARTS];
};
struct I {
    IntRegister part[PARTS];
};

#define BLUEJAY_EACH_PART _Pragma("GCC unroll 4") for (int p = 0; p < PARTS; ++p)

inline F set(float value) {
    F r;
    BLUEJAY_EACH_PART r.part[p] = value - FloatRegister{};
    return r;
}
inline I set(int32_t value) {
    I r;
    BLUEJAY_EACH_PART r.part[p] = value - IntRegister{};
    return r;
}
inline F load(const float* from) {
    F r;
    BLUEJAY_EACH_PART r.part[p] = reinterpret_cast<const FloatRegisterUnaligned*>(from)[p];
    return r;
}
inline void store(float* to, F a) {
    BLUEJAY_EACH_PART reinterpret_cast<FloatRegisterUnaligned*>(to)[p] = a.part[p];
}

#define BLUEJAY_OPERATOR(TYPE, OP)             \
    inline TYPE operator OP(TYPE a, TYPE b) { \
        BLUEJAY_EACH_PART a.part[p] = a.part[p] OP b.part[p]; \
        return a;                              \
    }
BLUEJAY_OPERATOR(F, +)
BLUEJAY_OPERATOR(F, -)
BLUEJAY_OPERATOR(F, *)
BLUEJAY_OPERATOR(F, /)
BLUEJAY_OPERATOR(I, +)
BLUEJAY_OPERATOR(I, -)
BLUEJAY_OPERATOR(I, <<)
#undef BLUEJAY_OPERATOR

inline F max(F a, F b) {
    BLUEJAY_EACH_PART a.part[p] = a.part[p] > b.part[p] ? a.part[p] : b.part[p];
    return a;
}
inline F min(F a, F b) {
    BLUEJAY_EACH_PART a.part[p] = a.part[p] < b.part[p] ? a.part[p] : b.part[p];
    return a;
}
inline F abs(F a) { return max(a, set(0.0f) - a); }
/// In each lane `a` if `x` is negative, otherwise `b`.
inline F where_negative(F x, F a, F b) {
    BLUEJAY_EACH_PART a.part[p] = x.part[p] < 0 ? a.part[p] : b.part[p];
    return a;
}
inline F to_float(I a) {
    F r;
    BLUEJAY_EACH_PART r.part[p] = __builtin_convertvector(a.part[p], FloatRegister);
    return r;
}
inline I bits(F a) {
    I r;
    BLUEJAY_EACH_PART r.part[p] = reinterpret_cast<IntRegister>(a.part[p]);
    return r;
}
inline F from_bits(I a) {
    F r;
    BLUEJAY_EACH_PART r.part[p] = reinterpret_cast<FloatRegister>(a.part[p]);
    return r;
}
inline float sum(F a) {
    alignas(64) float lane[16];
    store(lane, a);
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
    return lane[0];
}
inline float largest(F a) {
    alignas(64) float lane[16];
    store(lane, a);
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
}

/// The nearest integer, ties to even, for |a| < 2^22: the sum with 1.5 * 2^23 has no bits for a fraction.
inline I round(F a) {
    const F magic = set(12582912.0f);
    return bits(a + magic) - bits(magic);
}

/// e^a with an error of two units in the last place (Cephes' polynomial for |x| <= ln 2 / 2).
inline F exp(F a) {
    a = min(max(a, set(-87.0f)), set(88.0f));
    const I n = round(a * set(1.44269504088896341f));
    F x = a - to_float(n) * set(0.693359375f);
    x = x - to_float(n) * set(-2.12194440e-4f);
    F y = set(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        y = y * x + set(c);
    y = y * x * x + x + set(1.0f);
    return y * from_bits((n + set(127)) << set(23));
}

// Each instruction set defines:
//   F from_bf16(const uint16_t*)             converts 16 bfloat16
//   F from_int8(const int8_t*)               converts 16 int8
//   void to_bf16(uint16_t*, F)               rounds to nearest, ties to even
//   void to_int8(int8_t*, I)                 stores the low byte of each lane
//   Bytes load_bytes(const uint8_t*)         loads 64 bytes
//   Table load_table(const uint8_t*)         loads a codebook of 16 bytes
//   Nibbles look_up(Table, Bytes)            looks up the low and the high nibbles of 64 bytes
//   I start(int32_t)                         initial value of a sum of dot(), given -128 * (sum of x)
//   I dot(I, Bytes w, const int8_t* x)       lane i += sum over k < 4 of (w[4 i + k] - 128) * x[k], except for start()
//   F dot_bf16(F, const uint16_t* w, const uint16_t* x)   lane i += sum over k < 2 of w[2 i + k] * x[k]
