// The engine's threads. They wake up once per step, spin in barriers between its phases, and sleep when idle.

#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace bluejay {

class Pool {
   public:
    /// Throws std::runtime_error if the system does not start the threads.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    /// Runs `body(thread)` once on every thread, including the caller's. Returns when all have finished. Throws
    /// std::runtime_error in a process that was forked from the one with the threads.
    void run(const std::function<void(int)>& body);

    /// Called by every thread inside `run`: waits for all of them.
    void barrier();

    /// Called by every thread inside `run`: divides 0 .. count - 1 into chunks of `grain`, calls `body(first, last)` for each,
    /// and waits until all are done. Each thread has a contiguous range of chunks, so that it reads contiguous memory. After
    /// its own range, it takes chunks of the other threads. `body` must not throw.
    template <class Body>
    void share(int count, int grain, const Body& body) {
        const int64_t chunks = (count + grain - 1) / grain;
        for (int turn = 0; turn < threads(); ++turn) {
            const int owner = (thread_ + turn) % threads();
            const int end = int(chunks * (owner + 1) / threads());
            for (;;) {
                const int taken = taken_[owner].chunks.fetch_add(1, std::memory_order_relaxed);
                const int chunk = int(chunks * owner / threads()) + taken;
                if (chunk >= end) break;
                body(chunk * grain, std::min(count, (chunk + 1) * grain));
            }
        }
        barrier();
    }

   private:
    void work(int thread);
    void end();

    const std::function<void(int)>* body_ = nullptr;
    std::vector<std::thread> workers_;
    // Each has its own cache line, because all threads write to them often.
    struct alignas(64) Taken {
        std::atomic<int> chunks{0};
    };
    std::unique_ptr<Taken[]> taken_;  // from the range of each thread
    inline static thread_local int thread_ = 0;
    alignas(64) std::atomic<unsigned> job_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> generation_{0};
    bool ending_ = false;
    const int process_;  // which has the threads
};

}  // namespace bluejay
