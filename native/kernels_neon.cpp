#include "kernels.h"
#include "lanes_neon.h"

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace bluejay {
namespace neon {
namespace {
#include "kernels_body.h"
}
}  // namespace neon

const Kernels* neon_kernels() {
#if defined(__linux__)  // Apple's all have it
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return nullptr;
#endif
    return &neon::kernels;
}
}  // namespace bluejay
