// SPDX-License-Identifier: Apache-2.0
//
// The adaptors of examples/: threads of OpenMP and of TBB do larql's work, with the bits that its own threads give.
// Compiled once for each, as LARQL_TEST_EXECUTOR.
#include LARQL_TEST_EXECUTOR_HEADER

#include <larql/gqa_attention.hpp>

#include <support/attention_checks.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using larql::testing::random_source;
using larql::testing::random_tensor;

}  // namespace

TEST_CASE("a lent executor runs every task once, also when some throw, and says so") {
    LARQL_TEST_EXECUTOR threads;
    CHECK(threads.concurrency() >= 1);
    for (const std::size_t count : {0U, 1U, 5U, 1000U}) {
        std::vector<std::atomic<int>> runs(count);
        threads.run(count, [&](std::size_t i) { ++runs[i]; });
        for (const auto& n : runs) CHECK(n == 1);
        const auto run_and_fail = [&] {
            threads.run(count, [&](std::size_t i) {
                ++runs[i];
                if (i % 3 == 0) throw std::runtime_error("a task failed");
            });
        };
        if (count == 0)
            run_and_fail();
        else
            CHECK_THROWS_AS(run_and_fail(), std::runtime_error);
        for (const auto& n : runs) CHECK(n == 2);
    }
}

TEST_CASE("attention on a lent executor has the bits of one thread, from many callers and from inside tasks") {
    LARQL_TEST_EXECUTOR threads;
    random_source random(1);
    const auto q = random_tensor<float>(random, 40, 8, 64), k = random_tensor<float>(random, 700, 2, 64);
    larql::serial_executor serial;
    const auto want = larql::gqa_attention(q, k, k, {.threads = &serial});
    const auto agrees = [&] { return larql::gqa_attention(q, k, k, {.threads = &threads}) == want; };
    CHECK(agrees());
    std::atomic<int> right{0};
    {
        std::vector<std::jthread> callers;
        for (int i = 0; i < 4; ++i) callers.emplace_back([&] { right += agrees() ? 1 : 0; });
    }
    CHECK(right == 4);
    threads.run(4, [&](std::size_t) { right += agrees() ? 1 : 0; });
    CHECK(right == 8);
}
