// SPDX-License-Identifier: Apache-2.0
//
// The threads of oneTBB lent to larql. Copy it into an engine that has TBB, link TBB::tbb, and hand it to any call that
// takes an executor.
#ifndef LARQL_EXAMPLES_TBB_EXECUTOR_HPP
#define LARQL_EXAMPLES_TBB_EXECUTOR_HPP

#include <larql/executor.hpp>

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>
#include <oneapi/tbb/task_arena.h>

#include <cstddef>
#include <exception>
#include <mutex>

/// Calls may come from any thread, and from inside tasks of TBB's: the arena of the caller does the work.
class tbb_executor final : public larql::executor {
public:
    [[nodiscard]] std::size_t concurrency() const noexcept override {
        return static_cast<std::size_t>(oneapi::tbb::this_task_arena::max_concurrency());
    }

    void run(std::size_t count, larql::task_ref task) override {
        std::exception_ptr failure;  // an exception that left a task would cancel the others
        std::mutex mutex;
        oneapi::tbb::parallel_for(
            std::size_t{0}, count,
            [&](std::size_t i) {
                try {
                    task(i);
                } catch (...) {
                    const std::lock_guard lock(mutex);
                    if (!failure) failure = std::current_exception();
                }
            },
            oneapi::tbb::simple_partitioner{});
        if (failure) std::rethrow_exception(failure);
    }
};

#endif
