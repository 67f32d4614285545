// The right side of a product in attention of a training step (flash.h).

#pragma once
#include "training.h"

namespace bluejay {

/// A matrix w by which rows of x are multiplied: blocks of 16 columns, in which two rows stand side by side as pairs.
struct Operand {
    const Bf16* w;
    ptrdiff_t pair, block;  // distances between pairs and between blocks
};

}  // namespace bluejay
