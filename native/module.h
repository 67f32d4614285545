// The parts of bluejay._native that its two files share.

#pragma once
#include <nanobind/nanobind.h>

#include <string>

#include "kernels.h"

namespace nb = nanobind;

namespace bluejay {

/// Throws std::invalid_argument for an unknown name.
Activation activation_named(const std::string& name);  // module.cpp
void bind_training(nb::module_& m);                    // training.cpp

}  // namespace bluejay
