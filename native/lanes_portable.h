// Any processor: plain C++ that the compiler may vectorise.

#pragma once
#include <cstdint>
#include <initializer_list>

#include "formats.h"

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

inline F from_bf16(const uint16_t* from) {
    float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = float_of_bf16(from[i]);
    return load(lane);
}
inline F from_int8(const int8_t* from) {
    float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = from[i];
    return load(lane);
}
inline void to_bf16(uint16_t* to, F a) {
    float lane[16];
    __builtin_memcpy(lane, &a, 64);
    for (int i = 0; i < 16; ++i) to[i] = bf16_of_float(lane[i]);
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
    for (int i = 0; i < 16; ++i)
        lane[i] = float_of_bf16(w[2 * i]) * float_of_bf16(x[0]) + float_of_bf16(w[2 * i + 1]) * float_of_bf16(x[1]);
    return a + load(lane);
}

}  // namespace bluejay::portable
