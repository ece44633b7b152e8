// SPDX-License-Identifier: Apache-2.0
//
// OpenMP's threads lent to larql. Copy it into an engine that has OpenMP, compile with -fopenmp, and hand it to any call
// that takes an executor.
#ifndef LARQL_EXAMPLES_OPENMP_EXECUTOR_HPP
#define LARQL_EXAMPLES_OPENMP_EXECUTOR_HPP

#include <larql/executor.hpp>

#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <exception>

/// Calls may come from any thread. One from inside a parallel region of the engine's own runs on that region's thread,
/// as nested parallelism is off unless asked for.
class openmp_executor final : public larql::executor {
public:
    [[nodiscard]] std::size_t concurrency() const noexcept override {
        return omp_in_parallel() != 0 ? 1 : static_cast<std::size_t>(omp_get_max_threads());
    }

    void run(std::size_t count, larql::task_ref task) override {
        std::exception_ptr failure;  // must not leave the region; the other tasks run all the same
#pragma omp parallel for schedule(dynamic, 1)
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(count); ++i) {
            try {
                task(static_cast<std::size_t>(i));
            } catch (...) {
#pragma omp critical(larql_openmp_executor)
                if (!failure) failure = std::current_exception();
            }
        }
        if (failure) std::rethrow_exception(failure);
    }
};

#endif
