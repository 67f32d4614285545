// AVX2 with FMA (Haswell and later, every Zen).

#pragma once
#include <immintrin.h>

#include <cstdint>
#include <initializer_list>

namespace bluejay::avx2 {

constexpr const char* NAME = "avx2";
constexpr int WIDTH = 8;
constexpr int TILE = 2;
constexpr int BLOCKS = 1;

#include "lanes.h"

struct Bytes {
    __m256i v[2];
};
struct Table {
    __m256i v;
};
struct Nibbles {
    Bytes low, high;
};

inline F from_bf16(const uint16_t* from) {
    F r;
    for (int p = 0; p < 2; ++p) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + p));
        r.part[p] = reinterpret_cast<FloatRegister>(_mm256_slli_epi32(wide, 16));
    }
    return r;
}
inline F from_int8(const int8_t* from) {
    F r;
    for (int p = 0; p < 2; ++p) {
        const __m128i half = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8 * p));
        r.part[p] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(half));
    }
    return r;
}
inline void to_bf16(uint16_t* to, F a) {
    for (int p = 0; p < 2; ++p) {
        const __m256i all = reinterpret_cast<__m256i>(a.part[p]);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(all, 16), _mm256_set1_epi32(1));
        const __m256i rounded =
            _mm256_srli_epi32(_mm256_add_epi32(all, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to) + p, _mm256_castsi256_si128(packed));
    }
}
inline void to_int8(int8_t* to, I a) {
    alignas(32) int32_t lane[16];
    __builtin_memcpy(lane, &a, 64);
    for (int i = 0; i < 16; ++i) to[i] = static_cast<int8_t>(lane[i]);
}
inline Bytes load_bytes(const uint8_t* from) {
    const __m256i* at = reinterpret_cast<const __m256i*>(from);
    return {{_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)}};
}
inline Table load_table(const uint8_t* codes) {
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)))};
}
inline Nibbles look_up(Table table, Bytes codes) {
    const __m256i four_bits = _mm256_set1_epi8(15);
    Nibbles r;
    for (int p = 0; p < 2; ++p) {
        r.low.v[p] = _mm256_shuffle_epi8(table.v, _mm256_and_si256(codes.v[p], four_bits));
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes.v[p], 4), four_bits);
        r.high.v[p] = _mm256_shuffle_epi8(table.v, high);
    }
    return r;
}
/// dot() multiplies signed numbers here, so a sum needs no correction.
inline I start(int32_t) { return set(int32_t{0}); }
/// vpmaddubsw multiplies unsigned by signed numbers, and sums of pairs saturate at 16 bits. The product of |w| and x with
/// the sign of w is used, whose pairs are at most 2 * 128 * 127.
inline I dot(I a, Bytes w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const __m256i all = _mm256_set1_epi32(four);
    for (int p = 0; p < 2; ++p) {
        const __m256i centred = _mm256_xor_si256(w.v[p], _mm256_set1_epi8(-128));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(all, centred));
        a.part[p] += reinterpret_cast<IntRegister>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return a;
}
inline F dot_bf16(F a, const uint16_t* w, const uint16_t* x) {
    int32_t two;
    __builtin_memcpy(&two, x, 4);
    const __m256 even = _mm256_castsi256_ps(_mm256_set1_epi32(two << 16));
    const __m256i upper = _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000));
    const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(_mm256_set1_epi32(two), upper));
    for (int p = 0; p < 2; ++p) {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w) + p);
        const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
        const __m256 second = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
        a.part[p] = _mm256_fmadd_ps(first, even, a.part[p]);
        a.part[p] = _mm256_fmadd_ps(second, odd, a.part[p]);
    }
    return a;
}

}  // namespace bluejay::avx2
