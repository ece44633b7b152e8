// SPDX-License-Identifier: Apache-2.0
#include <larql/attention_layer.hpp>
#include <larql/detail/convert/write_queue.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/mla_absorb.hpp>
#include <support/random.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using larql::executor;
using larql::task_ref;
using larql::tensor;
using larql::thread_pool;

/// Long enough for the pool's threads to take tasks too.
void wait(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

/// Calls `use(i)` on `count` threads at once and waits for all.
template <class F>
void on_threads(std::size_t count, F use) {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < count; ++i) threads.emplace_back([use, i] { use(i); });
    for (std::thread& t : threads) t.join();
}

/// What an engine may lend that asks the system for the number of its threads and gets 0.
class shy_executor final : public executor {
public:
    [[nodiscard]] std::size_t concurrency() const noexcept override { return 0; }
    void run(std::size_t count, task_ref task) override {
        for (std::size_t i = 0; i < count; ++i) task(i);
    }
};

template <class T, std::size_t Rank>
tensor<T, Rank> random_tensor(const std::array<std::size_t, Rank>& shape, std::uint64_t seed) {
    larql::testing::random_source random(seed);
    auto out = tensor<T, Rank>::from_shape(shape);
    for (T& x : out) x = static_cast<T>(2 * random.uniform() - 1);
    return out;
}

/// Attention of 40 tokens with eight heads, on the threads given.
tensor<float, 3> attend(executor& threads, std::uint64_t seed) {
    const auto q = random_tensor<float, 3>({40, 8, 32}, seed);
    const auto k = random_tensor<float, 3>({40, 2, 32}, seed + 1);
    return larql::gqa_attention(q, k, k, {.threads = &threads});
}

}  // namespace

TEST_CASE("executor: every task runs exactly once, on one thread and on several") {
    for (const std::size_t threads : {1U, 2U, 4U}) {
        thread_pool pool(threads);
        CHECK(pool.concurrency() == threads);
        for (const std::size_t count : {0U, 1U, 2U, 1000U}) {
            std::vector<std::atomic<int>> calls(count);
            pool.run(count, [&](std::size_t i) { ++calls[i]; });
            for (const auto& n : calls) CHECK(n == 1);
        }
    }
}

TEST_CASE("executor: an exception reaches the caller after the other tasks have ended, and the pool goes on") {
    thread_pool pool(3);
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
    thread_pool pool(2);
    std::atomic<std::size_t> sum{0};
    for (int round = 0; round < 20000; ++round) pool.run(2, [&](std::size_t i) { sum += i; });
    CHECK(sum == 20000);
}

TEST_CASE("executor: every task runs, whichever throws, and the first exception reaches the caller") {
    larql::serial_executor serial;
    thread_pool one(1), three(3);
    for (executor* const threads : std::initializer_list<executor*>{&serial, &one, &three})
        for (const std::size_t count : {1U, 2U, 10U}) {
            CAPTURE(count);
            std::vector<std::atomic<int>> calls(count);
            std::string message;
            try {
                threads->run(count, [&](std::size_t i) {
                    if (i != 0) wait(2);
                    ++calls[i];
                    if (i == 0 || i == 4) throw std::runtime_error("task " + std::to_string(i));
                });
            } catch (const std::runtime_error& e) {
                message = e.what();
            }
            CHECK(message == "task 0");
            for (const auto& n : calls) CHECK(n == 1);
        }
}

TEST_CASE("executor: a task runs tasks of its own on the same pool, to any depth") {
    for (const std::size_t threads : {1U, 2U, 3U}) {
        thread_pool pool(threads);
        std::atomic<int> leaves{0};
        const auto descend = [&](const auto& self, int depth) -> void {
            pool.run(3, [&](std::size_t) {
                wait(1);
                if (depth == 0)
                    ++leaves;
                else
                    self(self, depth - 1);
            });
        };
        descend(descend, 3);
        CHECK(leaves == 81);
    }
}

TEST_CASE("executor: an exception of a nested run passes through both") {
    thread_pool pool(2);
    std::atomic<int> ended{0};
    CHECK_THROWS_WITH_AS(pool.run(4,
                                  [&](std::size_t i) {
                                      wait(1);
                                      pool.run(4, [&](std::size_t j) {
                                          ++ended;
                                          if (i == 2 && j == 1) throw std::runtime_error("inner");
                                      });
                                  }),
                         "inner", std::runtime_error);
    CHECK(ended == 16);
}

TEST_CASE("executor: several threads share a pool") {
    thread_pool pool(3);
    constexpr std::size_t callers = 4, rounds = 300, count = 5;
    std::vector<std::atomic<std::size_t>> sums(callers);
    on_threads(callers, [&](std::size_t caller) {
        for (std::size_t round = 0; round < rounds; ++round) {
            std::vector<std::atomic<int>> calls(count);
            pool.run(count, [&](std::size_t i) {
                std::this_thread::sleep_for(std::chrono::microseconds((i * 137 + caller * 91 + round) % 200));
                ++calls[i];
            });
            for (const auto& n : calls) sums[caller] += static_cast<std::size_t>(n.load());
        }
    });
    for (const auto& sum : sums) CHECK(sum == rounds * count);
}

TEST_CASE("executor: callers that wait at once are all woken") {
    thread_pool pool(3);
    std::atomic<int> ran{0};
    on_threads(4, [&](std::size_t caller) {
        wait(static_cast<int>(caller));
        const auto me = std::this_thread::get_id();
        for (int round = 0; round < 5; ++round)
            pool.run(2, [&](std::size_t) {
                wait(std::this_thread::get_id() == me ? 1 : 20);
                ++ran;
            });
    });
    CHECK(ran == 40);
}

TEST_CASE("executor: a caller does not wait for the tasks of another") {
    thread_pool pool(2);
    std::atomic<int> begun{0};
    std::atomic<bool> finish{false};
    std::thread other([&] {
        pool.run(2, [&](std::size_t) {
            ++begun;
            while (!finish) wait(1);
        });
    });
    while (begun != 2) wait(1);  // the other caller and the pool's thread are busy
    std::atomic<int> ran{0};
    pool.run(8, [&](std::size_t) { ++ran; });
    CHECK(ran == 8);
    finish = true;
    other.join();
}

TEST_CASE("executor: attention from several threads that share a pool, and inside its tasks") {
    larql::serial_executor serial;
    std::vector<tensor<float, 3>> want;
    for (std::size_t i = 0; i < 4; ++i) want.push_back(attend(serial, i));
    thread_pool pool(3);
    std::atomic<int> right{0};
    on_threads(4, [&](std::size_t i) {
        for (int round = 0; round < 20; ++round) right += attend(pool, i) == want[i] ? 1 : 0;
    });
    CHECK(right == 80);
    pool.run(4, [&](std::size_t i) { right += attend(pool, i) == want[i] ? 1 : 0; });
    CHECK(right == 84);
}

TEST_CASE("executor: one that says it has 0 threads has one") {
    shy_executor shy;
    larql::serial_executor serial;
    CHECK(larql::detail::thread_count(shy) == 1);
    CHECK(attend(shy, 5) == attend(serial, 5));

    const auto q = random_tensor<double, 3>({5, 2, 8}, 1);
    const larql::attention_options with_shy{.threads = &shy}, with_serial{.threads = &serial};
    CHECK(larql::gqa_attention(q, q, q, with_shy) == larql::gqa_attention(q, q, q, with_serial));
    CHECK(larql::gqa_attention_with_weights(q, q, q, with_shy).weights ==
          larql::gqa_attention_with_weights(q, q, q, with_serial).weights);

    for (const std::size_t rows : {1U, 20U}) {  // few rows, and packed
        const auto a = random_tensor<float, 2>({rows, 30}, 2), b = random_tensor<float, 2>({50, 30}, 3);
        const auto product = [&](executor& threads) {
            auto c = tensor<float, 2>::from_shape({rows, 50});
            const larql::detail::dense_rows<float> left{a.data(), rows, 30, 30}, right{b.data(), 50, 30, 30};
            larql::detail::gemm_nt<float>(
                left.source(), right.source(), [&](std::size_t i) { return c.data() + i * 50; }, threads);
            return c;
        };
        CHECK(product(shy) == product(serial));
    }

    const larql::mla_geometry g{.hidden_size = 40,
                                .num_heads = 3,
                                .q_lora_rank = 24,
                                .kv_lora_rank = 20,
                                .qk_nope_head_dim = 6,
                                .qk_rope_head_dim = 8,
                                .v_head_dim = 10};
    const auto w = larql::testing::random_layer(g, 7);
    const auto factors = larql::testing::factors_of<float>(w);
    larql::absorb_options options;
    options.threads = &shy;
    const auto dense = larql::absorb(factors, g, options);
    CHECK(dense.k == larql::absorb(factors, g, {.threads = &serial}).k);

    const auto o = random_tensor<float, 2>({40, 30}, 8), x = random_tensor<float, 2>({12, 40}, 9);
    const larql::attention_layer<float> layer({.geometry = g, .rope = {.rotary_dim = 8, .theta = 80.0}, .scale = 0.3},
                                              larql::to_attention_weights<float>(factors, o));
    CHECK(layer.forward(x, &shy).out == layer.forward(x, &serial).out);
}

TEST_CASE("write_queue: pieces are written in order while others are made, and what waits is bounded") {
    constexpr std::size_t limit = 4096;
    std::vector<std::pair<std::uint64_t, std::byte>> written;
    std::atomic<std::size_t> ahead = 0, most = 0;
    larql::detail::write_queue queue(
        [&](std::size_t file, std::uint64_t offset, std::span<const std::byte> bytes) {
            CHECK(file == 7);
            written.emplace_back(offset, bytes.back());
            ahead -= bytes.size();
        },
        limit);
    for (std::uint64_t i = 0; i < 1000; ++i) {
        std::vector<std::byte> bytes = queue.buffer(static_cast<std::size_t>(1 + i % 1024));
        std::ranges::fill(bytes, static_cast<std::byte>(i % 251));
        const std::size_t size = bytes.size();
        queue.add({7, i, std::move(bytes)});
        most = std::max<std::size_t>(most, ahead += size);
    }
    queue.finish();
    CHECK(ahead == 0);
    CHECK(most <= limit);
    REQUIRE(written.size() == 1000);
    for (std::uint64_t i = 0; i < 1000; ++i)
        CHECK(written[static_cast<std::size_t>(i)] == std::pair(i, static_cast<std::byte>(i % 251)));
}

TEST_CASE("write_queue: a failure reaches whoever makes more or waits, and nothing is written after it") {
    std::atomic<int> calls = 0;
    const auto fails = [&](std::size_t, std::uint64_t, std::span<const std::byte>) {
        if (++calls == 3) throw std::runtime_error("disk");
    };
    larql::detail::write_queue queue(fails, 10);
    const auto fill = [&] {
        for (int i = 0; i < 100; ++i) queue.add({0, 0, std::vector<std::byte>(10)});
    };
    CHECK_THROWS_WITH_AS(fill(), "disk", std::runtime_error);
    CHECK_THROWS_WITH_AS(queue.finish(), "disk", std::runtime_error);
    CHECK(calls == 3);
}
