#include "kernels.h"
#include "operand.h"
#include "training.h"
#include "lanes_avx512.h"

namespace bluejay {
namespace avx512 {
namespace {
#include "kernels_body.h"
#include "training_rows.h"
#include "flash_dots.h"
#include "flash.h"

const TrainingKernels training_kernels{attention_space,   attend_training,   attend_backward, norm_training, norm_backward,
                                       activate_training, activate_backward, loss};
}  // namespace
}  // namespace avx512

const Kernels* avx512_kernels() {
    for (bool has : {__builtin_cpu_supports("avx512f") != 0, __builtin_cpu_supports("avx512bw") != 0,
                     __builtin_cpu_supports("avx512vl") != 0, __builtin_cpu_supports("avx512dq") != 0,
                     __builtin_cpu_supports("avx512vbmi") != 0, __builtin_cpu_supports("avx512vnni") != 0,
                     __builtin_cpu_supports("avx512bf16") != 0})
        if (!has) return nullptr;
    return &avx512::kernels;
}
const TrainingKernels* avx512_training_kernels() { return avx512_kernels() ? &avx512::training_kernels : nullptr; }
}  // namespace bluejay
