// SPDX-License-Identifier: Apache-2.0
//
// How larql uses threads: every function that can share its work takes an executor. An engine derives its own from
// larql::executor to lend its threads; `thread_pool` is for programs that have none.
#ifndef LARQL_EXECUTOR_HPP
#define LARQL_EXECUTOR_HPP

#include <larql/detail/function_ref.hpp>

#include <algorithm>
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
///
/// Wherever larql takes a pointer to an executor, null means threads of the call's own, where the work is worth
/// starting them. A function for which null means anything else says so.
///
/// larql calls `run` from the thread that called it, and never from inside a task of its own. An engine that calls
/// larql from its tasks, or from several threads with one executor, needs one whose `run` allows that: both of larql's
/// do.
class executor {
public:
    virtual ~executor() = default;

    /// How many tasks can make progress at once. 0, which std::thread::hardware_concurrency() may return, counts as 1.
    [[nodiscard]] virtual std::size_t concurrency() const noexcept = 0;

    /// Calls `task(i)` exactly once for each i in [0, count), in any order and possibly at once, and returns when all
    /// have ended, whether or not they throw. Then throws the first exception that a task threw. larql's tasks do not
    /// wait for each other: they may all run on one thread.
    virtual void run(std::size_t count, task_ref task) = 0;
};

namespace detail {

/// How many tasks to cut work into, for all that ask an executor.
[[nodiscard]] inline std::size_t thread_count(const executor& threads) noexcept {
    return std::max<std::size_t>(threads.concurrency(), 1);
}

/// executor::run on the calling thread.
inline void run_here(std::size_t count, task_ref task) {
    std::exception_ptr failure;
    for (std::size_t i = 0; i < count; ++i) {
        try {
            task(i);
        } catch (...) {
            if (!failure) failure = std::current_exception();
        }
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace detail

/// Runs every task on the calling thread. Any number of threads may use it at once, its own tasks included.
class serial_executor final : public executor {
public:
    [[nodiscard]] std::size_t concurrency() const noexcept override { return 1; }
    void run(std::size_t count, task_ref task) override { detail::run_here(count, task); }
};

/// Threads that wait for work, plus the calling thread. Not copyable.
///
/// Any number of threads may call `run` at once, and tasks may call it in turn, to any depth: each caller works on its
/// own tasks, the pool's idle threads help, and a call waits for none but its own tasks. So a pool of n threads that m
/// callers share runs up to n - 1 + m tasks at once. The pool must outlive every call of `run`: to destroy it during
/// one is the caller's mistake.
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
        if (m_workers.empty() || count <= 1) return detail::run_here(count, task);
        job mine(task, count);
        {
            const std::lock_guard lock(m_mutex);
            mine.older = m_open;
            m_open = &mine;
        }
        m_wake.notify_all();
        mine.drain();
        {
            std::unique_lock lock(m_mutex);
            close(mine);  // a worker that wakes up only now does not find it, and nobody waits for it
            m_done.wait(lock, [&] { return mine.helpers == 0; });
        }
        if (mine.failure) std::rethrow_exception(mine.failure);
    }

private:
    /// One call of run, on its caller's stack. Workers reach it through the list of open jobs alone, and the caller
    /// stays until it has left the list and the last of them has let go.
    struct job {
        task_ref task;
        std::size_t count;
        std::atomic<std::size_t> next{0};  ///< the first task that nobody has taken
        std::mutex failure_mutex{};
        std::exception_ptr failure{};
        job* older = nullptr;     ///< the next in the pool's list; under its mutex, as is `helpers`
        std::size_t helpers = 0;  ///< workers that may touch it

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
        std::unique_lock lock(m_mutex);
        for (;;) {
            m_wake.wait(lock, [this] { return m_stopping || m_open != nullptr; });
            if (m_stopping) return;
            job& current = *m_open;  // the newest: calls inside tasks come before what waits for those tasks
            ++current.helpers;
            lock.unlock();
            current.drain();
            lock.lock();
            close(current);
            if (--current.helpers == 0) m_done.notify_all();  // all callers wait here, each for its own job
        }
    }

    /// Takes a job whose tasks are all taken off the list, if it is still there. The caller holds the mutex.
    void close(const job& drained) noexcept {
        for (job** link = &m_open; *link != nullptr; link = &(*link)->older) {
            if (*link != &drained) continue;
            *link = drained.older;
            return;
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
    job* m_open = nullptr;  ///< jobs that may have tasks left, newest first
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
