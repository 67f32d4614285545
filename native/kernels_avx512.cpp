#include "kernels.h"
#include "lanes_avx512.h"

namespace bluejay {
namespace avx512 {
namespace {
#include "kernels_body.h"
}
}  // namespace avx512

const Kernels* avx512_kernels() {
    for (bool has : {__builtin_cpu_supports("avx512f") != 0, __builtin_cpu_supports("avx512bw") != 0,
                     __builtin_cpu_supports("avx512vl") != 0, __builtin_cpu_supports("avx512dq") != 0,
                     __builtin_cpu_supports("avx512vbmi") != 0, __builtin_cpu_supports("avx512vnni") != 0,
                     __builtin_cpu_supports("avx512bf16") != 0})
        if (!has) return nullptr;
    return &avx512::kernels;
}
}  // namespace bluejay
