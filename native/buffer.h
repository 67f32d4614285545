#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace bluejay {

/// Zeroed memory that is allocated when it is first written to, in huge pages if the system has them.
class Buffer {
   public:
    explicit Buffer(size_t bytes) : bytes_(bytes ? bytes : 1) {
        void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(at, bytes_, MADV_HUGEPAGE);
#endif
        data_ = static_cast<uint8_t*>(at);
    }
    ~Buffer() { munmap(data_, bytes_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    uint8_t* data() const { return data_; }

   private:
    uint8_t* data_;
    size_t bytes_;
};

}  // namespace bluejay
