// All kernels of one instruction set, included in the namespace of its lanes.

#include "tiles.h"
#include "rows.h"
#include "products.h"
#include "q8.h"
#include "q4.h"
#include "matmul.h"
#include "attention.h"

uint64_t read(const uint8_t* from, size_t bytes) {
    typedef int64_t Word __attribute__((vector_size(4 * WIDTH)));
    Word seen[8] = {};
    for (size_t at = 0; at + sizeof seen <= bytes; at += sizeof seen)
        for (int i = 0; i < 8; ++i) {
            __builtin_prefetch(from + at + i * sizeof(Word) + PREFETCH_BYTES);
            seen[i] ^= *reinterpret_cast<const Word*>(from + at + i * sizeof(Word));
        }
    uint64_t result = 0;
    for (const Word& word : seen)
        for (size_t i = 0; i < sizeof(Word) / 8; ++i) result ^= static_cast<uint64_t>(word[i]);
    return result;
}

const Kernels kernels{NAME, TILE, norm, pack, matmul, append, attend, partial, likeliest, weights, mass, unpack_row, quantize_q8, quantize_q4, read};
