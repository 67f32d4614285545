// bfloat16 is the upper half of a float.

#pragma once
#include <cstdint>

namespace bluejay {

// Both functions are static because each file is compiled for its own instruction set: the linker must not merge them.

static inline float float_of_bf16(uint16_t bf16) {
    const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

/// Rounds to the nearest bfloat16, ties to even.
static inline uint16_t bf16_of_float(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof value);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace bluejay
