// SPDX-License-Identifier: Apache-2.0
#include <larql/executor.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

TEST_CASE("executor: every task runs exactly once, on one thread and on several") {
    for (const std::size_t threads : {1U, 2U, 4U}) {
        larql::thread_pool pool(threads);
        CHECK(pool.concurrency() == threads);
        for (const std::size_t count : {0U, 1U, 2U, 1000U}) {
            std::vector<std::atomic<int>> calls(count);
            pool.run(count, [&](std::size_t i) { ++calls[i]; });
            for (const auto& n : calls) CHECK(n == 1);
        }
    }
}

TEST_CASE("executor: an exception reaches the caller after the other tasks have ended, and the pool goes on") {
    larql::thread_pool pool(3);
    std::atomic<int> ended{0};
    CHECK_THROWS_AS(pool.run(100,
                             [&](std::size_t i) {
                                 if (i == 7) throw std::runtime_error("seven");
                                 ++ended;
                             }),
                    std::runtime_error);
    CHECK(ended == 99);
    pool.run(10, [&](std::size_t) { ++ended; });
    CHECK(ended == 109);
}

TEST_CASE("executor: runs can follow each other quickly") {
    larql::thread_pool pool(2);
    std::atomic<std::size_t> sum{0};
    for (int round = 0; round < 20000; ++round) pool.run(2, [&](std::size_t i) { sum += i; });
    CHECK(sum == 20000);
}
