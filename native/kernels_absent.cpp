// Stand-ins for the kernels of other processors than this build's, or of a compiler that does not know them.
#include "kernels.h"
#include "training.h"

namespace bluejay {
#if !defined(__x86_64__)
const Kernels* avx512_kernels() { return nullptr; }
const Kernels* avx2_kernels() { return nullptr; }
const TrainingKernels* avx512_training_kernels() { return nullptr; }
#endif
#if !defined(BLUEJAY_AMX)
const Kernels* amx_kernels() { return nullptr; }
const TrainingKernels* amx_training_kernels() { return nullptr; }
#endif
#if !defined(__aarch64__)
const Kernels* neon_kernels() { return nullptr; }
#endif
}  // namespace bluejay
