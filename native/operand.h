// What rows of x are multiplied with, in attention of a training step.

#pragma once
#include "training.h"

namespace bluejay {

/// Blocks of 16 columns, stored as pairs of rows.
struct Operand {
    const Bf16* w;
    ptrdiff_t pair, block;  // distances between pairs and between blocks
};

}  // namespace bluejay
