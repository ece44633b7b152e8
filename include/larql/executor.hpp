// SPDX-License-Identifier: Apache-2.0
//
// How larql uses threads: every function that can share its work takes an executor. An engine derives its own from
// larql::executor to lend its threads; `thread_pool` is for programs that have none.
#ifndef LARQL_EXECUTOR_HPP
#define LARQL_EXECUTOR_HPP

#include <larql/detail/function_ref.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace larql {

/// A reference to a callable `void(std::size_t task)`; it does not own the callable.
using task_ref = detail::function_ref<void(std::size_t)>;

/// Runs numbered tasks. Derive from it to lend an engine's own threads to larql.
class executor {
public:
    virtual ~executor() = default;

    /// How many tasks can make progress at once, at least 1.
    [[nodiscard]] virtual std::size_t concurrency() const noexcept = 0;

    /// Calls `task(i)` exactly once for each i in [0, count), in any order and possibly at once, and returns when all
    /// have ended. Throws the first exception that a task threw, after the others have ended.
    virtual void run(std::size_t count, task_ref task) = 0;
};

/// Runs every task on the calling thread.
class serial_executor final : public executor {
public:
    [[nodiscard]] std::size_t concurrency() const noexcept override { return 1; }
    void run(std::size_t count, task_ref task) override {
        for (std::size_t i = 0; i < count; ++i) task(i);
    }
};

/// Threads that wait for work, plus the calling thread. Not copyable; one `run` at a time.
class thread_pool final : public executor {
public:
    /// @param threads  total, the caller's included; 0 means one per processor
    explicit thread_pool(std::size_t threads = 0) {
        if (threads == 0) threads = std::thread::hardware_concurrency();
        if (threads == 0) threads = 1;
        m_workers.reserve(threads - 1);
        try {
            for (std::size_t i = 1; i < threads; ++i) m_workers.emplace_back([this] { work(); });
        } catch (...) {
            stop();
            throw;
        }
    }
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    ~thread_pool() override { stop(); }

    [[nodiscard]] std::size_t concurrency() const noexcept override { return m_workers.size() + 1; }

    void run(std::size_t count, task_ref task) override {
        if (count == 0) return;
        if (m_workers.empty() || count == 1) {
            for (std::size_t i = 0; i < count; ++i) task(i);
            return;
        }
        job current{task, count};
        {
            const std::lock_guard lock(m_mutex);
            m_job = &current;
            ++m_generation;
        }
        m_wake.notify_all();
        current.drain();
        std::unique_lock lock(m_mutex);
        m_job = nullptr;  // a worker that wakes up only now finds nothing to do, and nobody waits for it
        m_done.wait(lock, [this] { return m_busy == 0; });
        lock.unlock();
        if (current.failure) std::rethrow_exception(current.failure);
    }

private:
    struct job {
        task_ref task;
        std::size_t count;
        std::atomic<std::size_t> next{0};
        std::mutex failure_mutex{};
        std::exception_ptr failure{};

        job(task_ref t, std::size_t n) : task(t), count(n) {}

        void drain() noexcept {
            for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
                try {
                    task(i);
                } catch (...) {
                    const std::lock_guard lock(failure_mutex);
                    if (!failure) failure = std::current_exception();
                }
            }
        }
    };

    void work() noexcept {
        std::size_t seen = 0;
        for (;;) {
            job* current = nullptr;
            {
                std::unique_lock lock(m_mutex);
                m_wake.wait(lock, [&] { return m_stopping || m_generation != seen; });
                if (m_stopping) return;
                seen = m_generation;
                if (m_job == nullptr) continue;
                current = m_job;
                ++m_busy;
            }
            current->drain();
            const std::lock_guard lock(m_mutex);
            if (--m_busy == 0) m_done.notify_one();
        }
    }

    void stop() noexcept {
        {
            const std::lock_guard lock(m_mutex);
            m_stopping = true;
        }
        m_wake.notify_all();
        for (std::thread& worker : m_workers) worker.join();
        m_workers.clear();
    }

    std::mutex m_mutex{};
    std::condition_variable m_wake{};
    std::condition_variable m_done{};
    std::vector<std::thread> m_workers{};
    job* m_job = nullptr;
    std::size_t m_busy = 0;  ///< workers that hold the job
    std::size_t m_generation = 0;
    bool m_stopping = false;
};

namespace detail {

/// Calls `use(executor&)` with the caller's executor, or, when that is null, with a pool that lives for the call. Work
/// that is too small to pay for starting threads passes `worth_threads` false and runs on the calling thread.
template <class F>
void with_executor(executor* given, bool worth_threads, F&& use) {
    if (given != nullptr) return use(*given);
    if (worth_threads && std::thread::hardware_concurrency() > 1) {
        thread_pool pool;
        return use(static_cast<executor&>(pool));
    }
    serial_executor serial;
    use(static_cast<executor&>(serial));
}

}  // namespace detail
}  // namespace larql

#endif
