#include "kernels.h"
#include "lanes_portable.h"

namespace bluejay {
namespace portable {
namespace {
#include "kernels_body.h"
}
}  // namespace portable

const Kernels* portable_kernels() {
    return &portable::kernels;
}
}  // namespace bluejay
