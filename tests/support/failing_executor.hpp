// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_TESTS_SUPPORT_FAILING_EXECUTOR_HPP
#define LARQL_TESTS_SUPPORT_FAILING_EXECUTOR_HPP

#include <larql/executor.hpp>

#include <cstddef>
#include <stdexcept>

namespace larql::testing {

/// Runs tasks here, and fails the n-th call of run.
class failing_executor final : public executor {
public:
    explicit failing_executor(std::size_t good) : m_good(good) {}
    [[nodiscard]] std::size_t concurrency() const noexcept override { return 1; }
    void run(std::size_t count, task_ref task) override {
        if (m_good-- == 0) throw std::runtime_error("no more");
        for (std::size_t i = 0; i < count; ++i) task(i);
    }

private:
    std::size_t m_good;
};

}  // namespace larql::testing

#endif
