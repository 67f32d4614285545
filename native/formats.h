// Number formats, and the layout of weight matrices. The arithmetic of each format is in products.h, q8.h and q4.h.

#pragma once
#include <cstddef>
#include <cstdint>

namespace bluejay {

enum class Format : uint8_t { f32, bf16, q8, q4 };

constexpr int BLOCK = 16;              // rows of a matrix that are interleaved, one per lane
constexpr int GROUP = 64;              // columns that share a scale in q8 and in inputs
constexpr int HALF_GROUP = GROUP / 2;  // columns that share a scale in q4

constexpr int round_up(int n, int to) { return (n + to - 1) / to * to; }

/// A bfloat16 is the upper half of a float. Functions here are static because each file is compiled for its own instruction
/// set: the linker must not merge them.
static inline float float_of_bf16(uint16_t bf16) { return __builtin_bit_cast(float, uint32_t(bf16) << 16); }

/// Rounds to the nearest bfloat16, ties to even.
static inline uint16_t bf16_of_float(float value) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, value);
    return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

struct FormatTraits {
    const char* name;
    int bits;      // of a stored number
    Format input;  // what a matrix of this format multiplies: both quantised formats multiply int8
    bool has_scales, has_steps, has_codebook;
};
constexpr FormatTraits FORMATS[] = {
    {"f32", 32, Format::f32, false, false, false},
    {"bf16", 16, Format::bf16, false, false, false},
    {"q8", 8, Format::q8, true, false, false},
    {"q4", 4, Format::q8, true, true, true},
};
constexpr const FormatTraits& traits(Format format) { return FORMATS[int(format)]; }

/// A weight matrix (rows, columns), padded to blocks of 16 rows and groups of 64 columns. A block is stored group by group,
/// and the 16 rows by 64 columns of a group are interleaved so that a register holds all 16 rows: f32 one column at a time,
/// bf16 two, q8 four (codes + 128), q4 four in the low nibbles and, in the high nibbles, the four 32 columns further on.
/// Scales have an array of their own. In q8 they are bfloat16, 16 for each group of each block. In q4 a block has 16
/// bfloat16 steps, followed for each group by the int8 scales, in steps, of its first and of its second 32 columns.
struct Matrix {
    static constexpr int SCALE_BYTES = 2 * BLOCK;  // of a group: one bfloat16 or two int8 for each row
    Format format = Format::f32;
    int rows = 0, columns = 0;
    const uint8_t* data = nullptr;
    const uint8_t* scales = nullptr;
    const uint8_t* codebook = nullptr;  // of q4: the values of the 16 codes, + 128

    int blocks() const { return (rows + BLOCK - 1) / BLOCK; }
    int groups() const { return (columns + GROUP - 1) / GROUP; }
    size_t block_bytes() const { return size_t(groups()) * GROUP * BLOCK * traits(format).bits / 8; }
    const uint8_t* block(int b) const { return data + b * block_bytes(); }
    size_t block_scale_bytes() const { return size_t(groups() + traits(format).has_steps) * SCALE_BYTES; }
    const uint8_t* block_scales(int b) const { return scales + b * block_scale_bytes(); }
};

}  // namespace bluejay
