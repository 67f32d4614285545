// Any processor: plain C++ that the compiler vectorises as far as it can.

#pragma once
#include <cstdint>
#include <initializer_list>

namespace bluejay::portable {

constexpr const char* NAME = "portable";
constexpr int WIDTH = 4;
constexpr int TILE = 2;
constexpr int BLOCKS = 1;

#include "lanes.h"

struct Bytes {
    uint8_t v[64];
};
struct Table {
    uint8_t v[16];
};
struct Nibbles {
    Bytes low, high;
};

inline float widen(uint16_t bf16) {
    const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
    float r;
    __builtin_memcpy(&r, &bits, 4);
    return r;
}
inline F from_bf16(const uint16_t* from) {
    float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = widen(from[i]);
    return load(lane);
}
inline F from_int8(const int8_t* from) {
    float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = from[i];
    return load(lane);
}
inline void to_bf16(uint16_t* to, F a) {
    uint32_t lane[16];
    __builtin_memcpy(lane, &a, 64);
    for (int i = 0; i < 16; ++i) to[i] = static_cast<uint16_t>((lane[i] + 0x7FFF + (lane[i] >> 16 & 1)) >> 16);
}
inline void to_int8(int8_t* to, I a) {
    int32_t lane[16];
    __builtin_memcpy(lane, &a, 64);
    for (int i = 0; i < 16; ++i) to[i] = static_cast<int8_t>(lane[i]);
}
inline Bytes load_bytes(const uint8_t* from) {
    Bytes r;
    __builtin_memcpy(r.v, from, 64);
    return r;
}
inline Table load_table(const uint8_t* codes) {
    Table r;
    __builtin_memcpy(r.v, codes, 16);
    return r;
}
inline Nibbles look_up(const Table& table, const Bytes& codes) {
    Nibbles r;
    for (int i = 0; i < 64; ++i) {
        r.low.v[i] = table.v[codes.v[i] & 15];
        r.high.v[i] = table.v[codes.v[i] >> 4];
    }
    return r;
}
inline I start(int32_t) { return set(int32_t{0}); }
inline I dot(I a, const Bytes& w, const int8_t* x) {
    int32_t lane[16];
    for (int i = 0; i < 16; ++i) {
        lane[i] = 0;
        for (int k = 0; k < 4; ++k) lane[i] += (w.v[4 * i + k] - 128) * x[k];
    }
    I r;
    __builtin_memcpy(&r, lane, 64);
    return a + r;
}
inline F dot_bf16(F a, const uint16_t* w, const uint16_t* x) {
    float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = widen(w[2 * i]) * widen(x[0]) + widen(w[2 * i + 1]) * widen(x[1]);
    return a + load(lane);
}

}  // namespace bluejay::portable
