// NEON with the dot product (Armv8.2 with it and later: Graviton 2, Ampere Altra, Apple's M1).

#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <initializer_list>

namespace bluejay::neon {

constexpr const char* NAME = "neon";
constexpr int WIDTH = 4;
constexpr int TILE = 2;
constexpr int BLOCKS = 1;

#include "lanes.h"

struct Bytes {
    uint8x16_t v[4];
};
struct Table {
    uint8x16_t v;
};
struct Nibbles {
    Bytes low, high;
};

inline F from_bf16(const uint16_t* from) {
    F r;
    for (int p = 0; p < 4; ++p) r.part[p] = reinterpret_cast<FloatRegister>(vshll_n_u16(vld1_u16(from + 4 * p), 16));
    return r;
}
inline F from_int8(const int8_t* from) {
    F r;
    for (int p = 0; p < 4; ++p)
        for (int i = 0; i < 4; ++i) r.part[p][i] = from[4 * p + i];
    return r;
}
inline void to_bf16(uint16_t* to, F a) {
    for (int p = 0; p < 4; ++p) {
        const uint32x4_t all = reinterpret_cast<uint32x4_t>(a.part[p]);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(all, 16), vdupq_n_u32(1));
        vst1_u16(to + 4 * p, vshrn_n_u32(vaddq_u32(all, vaddq_u32(odd, vdupq_n_u32(0x7FFF))), 16));
    }
}
inline void to_int8(int8_t* to, I a) {
    for (int p = 0; p < 4; ++p)
        for (int i = 0; i < 4; ++i) to[4 * p + i] = static_cast<int8_t>(a.part[p][i]);
}
inline Bytes load_bytes(const uint8_t* from) {
    return {{vld1q_u8(from), vld1q_u8(from + 16), vld1q_u8(from + 32), vld1q_u8(from + 48)}};
}
inline Table load_table(const uint8_t* codes) { return {vld1q_u8(codes)}; }
inline Nibbles look_up(Table table, Bytes codes) {
    Nibbles r;
    for (int p = 0; p < 4; ++p) {
        r.low.v[p] = vqtbl1q_u8(table.v, vandq_u8(codes.v[p], vdupq_n_u8(15)));
        r.high.v[p] = vqtbl1q_u8(table.v, vshrq_n_u8(codes.v[p], 4));
    }
    return r;
}
/// dot() multiplies signed numbers here, so a sum needs no correction.
inline I start(int32_t) { return set(int32_t{0}); }
inline I dot(I a, Bytes w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
    for (int p = 0; p < 4; ++p) {
        const int8x16_t centred = vreinterpretq_s8_u8(veorq_u8(w.v[p], vdupq_n_u8(128)));
        a.part[p] = reinterpret_cast<IntRegister>(vdotq_s32(reinterpret_cast<int32x4_t>(a.part[p]), centred, all));
    }
    return a;
}
inline F dot_bf16(F a, const uint16_t* w, const uint16_t* x) {
    uint32_t two;
    __builtin_memcpy(&two, x, 4);
    const float32x4_t even = vreinterpretq_f32_u32(vdupq_n_u32(two << 16));
    const float32x4_t odd = vreinterpretq_f32_u32(vdupq_n_u32(two & 0xFFFF0000));
    for (int p = 0; p < 4; ++p) {
        const uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(w + 8 * p));
        float32x4_t sum = reinterpret_cast<float32x4_t>(a.part[p]);
        sum = vfmaq_f32(sum, vreinterpretq_f32_u32(vshlq_n_u32(both, 16)), even);
        sum = vfmaq_f32(sum, vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xFFFF0000))), odd);
        a.part[p] = reinterpret_cast<FloatRegister>(sum);
    }
    return a;
}

}  // namespace bluejay::neon
