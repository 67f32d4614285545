// AVX-512 with VNNI, VBMI and BF16 (Zen 4 and later, Sapphire Rapids and later).

#pragma once
#include <immintrin.h>

#include <cstdint>
#include <initializer_list>

namespace bluejay::avx512 {

constexpr const char* NAME = "avx512";
constexpr int WIDTH = 16;
/// Tokens that share one read of the weights; their sums fill the 32 registers.
constexpr int TILE = 12;
/// Blocks of 16 rows that share one read of an input. The processor can read two operands and multiply twice in a cycle; with
/// one block, each product would read an input, in addition to the weights.
constexpr int BLOCKS = 2;

#include "lanes.h"

struct Bytes {
    __m512i v;
};
struct Table {
    __m512i v;
};
struct Nibbles {
    Bytes low, high;
};

inline F from_bf16(const uint16_t* from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return {{reinterpret_cast<FloatRegister>(_mm512_slli_epi32(wide, 16))}};
}
inline F from_int8(const int8_t* from) {
    return {{_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))}};
}
inline void to_bf16(uint16_t* to, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.part[0])));
}
inline void to_int8(int8_t* to, I a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(a.part[0])));
}
inline Bytes load_bytes(const uint8_t* from) { return {_mm512_loadu_si512(from)}; }

/// The table is in the register four times, so that only the lower four of the six bits that vpermb reads matter.
inline Table load_table(const uint8_t* codes) {
    return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)))};
}
inline Nibbles look_up(Table table, Bytes codes) {
    return {{_mm512_permutexvar_epi8(codes.v, table.v)},
            {_mm512_permutexvar_epi8(_mm512_srli_epi16(codes.v, 4), table.v)}};
}
inline I start(int32_t offset) { return set(offset); }
inline I dot(I a, Bytes w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const __m512i all = _mm512_set1_epi32(four);
    return {{reinterpret_cast<IntRegister>(
        _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(a.part[0]), w.v, all))}};
}
inline F dot_bf16(F a, const uint16_t* w, const uint16_t* x) {
    int32_t two;
    __builtin_memcpy(&two, x, 4);
    return {{_mm512_dpbf16_ps(a.part[0], reinterpret_cast<__m512bh>(_mm512_loadu_si512(w)),
                              reinterpret_cast<__m512bh>(_mm512_set1_epi32(two)))}};
}

}  // namespace bluejay::avx512
