// The engine's threads: one wake-up a step, barriers that spin between the phases of a step, sleep when idle.

#pragma once
#include <atomic>
#include <functional>
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

    /// Inside `run`, by every thread: shares out 0..count-1 in runs of `grain`, whoever is free takes the next, and waits
    /// until all are done. `body(first, last)` must not throw.
    template <class Body>
    void share(int count, int grain, const Body& body) {
        for (;;) {
            const int first = next_.fetch_add(grain, std::memory_order_relaxed);
            if (first >= count) break;
            body(first, first + grain < count ? first + grain : count);
        }
        barrier();
    }

   private:
    void work(int thread);

    const std::function<void(int)>* body_ = nullptr;
    std::vector<std::thread> workers_;
    // Each on a cache line of its own: threads hammer on them.
    alignas(64) std::atomic<unsigned> job_{0};
    alignas(64) std::atomic<int> next_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> generation_{0};
    bool ending_ = false;
};

}  // namespace bluejay
