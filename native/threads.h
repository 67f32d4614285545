// The engine's threads: one wake-up a step, barriers that spin between the phases of a step, sleep when idle.

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
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    /// Every thread, the caller's included, runs `body(thread)` once; returns when all have.
    void run(const std::function<void(int)>& body);

    /// Inside `run`: waits until every thread is here.
    void barrier();

    /// Inside `run`, by every thread: shares out 0..count-1 in runs of `grain` and waits until all are done. Each thread has
    /// a stretch of its own, one run after the other, so that what it reads goes on where it ended; when it is through, it
    /// takes from the others. `body(first, last)` must not throw.
    template <class Body>
    void share(int count, int grain, const Body& body) {
        const int64_t runs = (count + grain - 1) / grain;
        for (int turn = 0; turn < threads(); ++turn) {
            const int owner = (thread_ + turn) % threads();
            const int end = int(runs * (owner + 1) / threads());
            for (;;) {
                const int run = int(runs * owner / threads()) + taken_[owner].runs.fetch_add(1, std::memory_order_relaxed);
                if (run >= end) break;
                body(run * grain, std::min(count, (run + 1) * grain));
            }
        }
        barrier();
    }

   private:
    void work(int thread);

    const std::function<void(int)>* body_ = nullptr;
    std::vector<std::thread> workers_;
    // Each on a cache line of its own: threads hammer on them.
    struct alignas(64) Taken {
        std::atomic<int> runs{0};
    };
    std::unique_ptr<Taken[]> taken_;  // of each thread's stretch
    inline static thread_local int thread_ = 0;
    alignas(64) std::atomic<unsigned> job_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> generation_{0};
    bool ending_ = false;
};

}  // namespace bluejay
