#include "threads.h"

#include <unistd.h>

#include <exception>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bluejay {
namespace {

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// About 100 microseconds. This is longer than the scheduler's work between two steps of a small model, and short enough to
// leave the processor to other programs.
constexpr int SPINS_BEFORE_SLEEP = 4000;
// A barrier that takes longer waits for a thread that lost its processor, which yielding may give back.
constexpr int SPINS_BEFORE_YIELD = 1000;

}  // namespace

Pool::Pool(int threads) : taken_(std::make_unique<Taken[]>(threads)), process_(getpid()) {
    try {
        for (int thread = 1; thread < threads; ++thread) workers_.emplace_back(&Pool::work, this, thread);
    } catch (const std::exception&) {
        end();
        throw std::runtime_error("the system does not start " + std::to_string(threads) +
                                 " threads; this process may need a higher limit of threads or of memory");
    }
}

Pool::~Pool() {
    if (getpid() == process_)
        end();
    else  // a forked process does not have the threads, so that it can neither join nor detach them
        new std::vector<std::thread>(std::move(workers_));
}

void Pool::end() {
    ending_ = true;
    job_.fetch_add(1, std::memory_order_release);
    job_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(const std::function<void(int)>& body) {
    if (!workers_.empty() && getpid() != process_)
        throw std::runtime_error("the model was loaded in another process; call bluejay.load in this one");
    body_ = &body;
    job_.fetch_add(1, std::memory_order_release);
    job_.notify_all();
    body(0);
    barrier();
}

void Pool::barrier() {
    const unsigned generation = generation_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads()) {
        arrived_.store(0, std::memory_order_relaxed);
        for (int thread = 0; thread < threads(); ++thread) taken_[thread].chunks.store(0, std::memory_order_relaxed);
        generation_.store(generation + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) {
        if (spins < SPINS_BEFORE_YIELD)
            pause();
        else
            std::this_thread::yield();
    }
}

void Pool::work(int thread) {
    thread_ = thread;
    for (unsigned seen = 0;;) {
        for (int spins = 0; job_.load(std::memory_order_acquire) == seen && spins < SPINS_BEFORE_SLEEP; ++spins) pause();
        job_.wait(seen, std::memory_order_acquire);
        ++seen;
        if (ending_) return;
        (*body_)(thread);
        barrier();
    }
}

}  // namespace bluejay
