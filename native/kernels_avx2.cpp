#include "kernels.h"
#include "lanes_avx2.h"

namespace bluejay {
namespace avx2 {
namespace {
#include "kernels_body.h"
}
}  // namespace avx2

const Kernels* avx2_kernels() {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return nullptr;
    return &avx2::kernels;
}
}  // namespace bluejay
