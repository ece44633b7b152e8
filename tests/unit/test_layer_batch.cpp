// SPDX-License-Identifier: Apache-2.0
//
// A block in an engine's hands, on every shipped checkpoint and in every form that it has: its halves around the
// engine's own attention, batches of sequences, caches that drop what a window has left behind, forks.
#include <larql/checkpoint.hpp>

#include <support/random.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_kind;
using larql::attention_layer;
using larql::cached_sequence;
using larql::errc;
using larql::kv_cache;
using larql::tensor;
using larql::testing::random_rows;
using larql::testing::random_source;
using larql::testing::relative_error;
using larql::testing::rows_of;

constexpr attention_form all_forms[] = {attention_form::factored, attention_form::dense, attention_form::latent};

/// Calls `use(layer)` for each block of each shipped checkpoint in each form, whose attention is to keys of each token.
template <class F>
void for_each_plain_layer(const F& use) {
    for (const auto& folder : std::filesystem::directory_iterator(std::string(LARQL_TEST_DATA) + "/hf")) {
        const std::string name = folder.path().filename().string();
        if (name.ends_with("_converted")) continue;  // what others wrote of a model that is here
        // A Baichuan as small as this one has the sizes of none, and larql would not believe it.
        const auto unknown = name == "baichuan" ? larql::unknown_policy::ignore : larql::unknown_policy::refuse;
        const auto model = larql::checkpoint::open(folder.path().string(), {.unknown = unknown});
        for (std::size_t block = 0; block < model.attention_blocks(); ++block)
            for (const attention_form form : all_forms) {
                if (!model.supports(form)) continue;
                const auto layer = model.attention(block, form);
                if (layer.spec().kind == attention_kind::compressed || layer.spec().indexer.any()) continue;
                if (layer.spec().kv_layer) continue;  // needs another block's cache: test_shared_keys
                CAPTURE(name);
                CAPTURE(block);
                CAPTURE(std::string(larql::to_string(form)));
                use(layer);
            }
    }
}

/// The window and the chunk of a block, the smaller one; 0: it sees all.
std::size_t reach(const attention_layer<float>& layer) {
    const std::size_t window = layer.spec().sliding_window, chunk = layer.spec().chunk;
    return window == 0 ? chunk : chunk == 0 ? window : std::min(window, chunk);
}

}  // namespace

TEST_CASE("attention_layer: its halves around gqa_attention are forward, for tokens in any order") {
    random_source random(1);
    std::size_t layers = 0;
    for_each_plain_layer([&](const attention_layer<float>& layer) {
        constexpr std::size_t tokens = 21;
        const auto x = random_rows(random, tokens, layer.spec().input_width());
        const auto whole = layer.forward(x);
        std::vector<std::size_t> positions(tokens);
        std::iota(positions.begin(), positions.end(), std::size_t{0});
        auto parts = layer.project(x, positions);
        CHECK(parts.q == whole.q);
        CHECK(parts.k == whole.k);
        CHECK(parts.v == whole.v);
        const auto attended = larql::gqa_attention_asym(parts.q, parts.k, parts.v, layer.options());
        CHECK(relative_error(layer.finish(attended, x), whole.out) <
              5e-6);  // forward may go by way of each head's keys

        // The same tokens backwards: each is rotated for its own position.
        auto reversed = tensor<float, 2>::from_shape(x.shape());
        for (std::size_t t = 0; t < tokens; ++t)
            std::copy_n(x.data() + t * x.shape(1), x.shape(1), reversed.data() + (tokens - 1 - t) * x.shape(1));
        std::reverse(positions.begin(), positions.end());
        const auto back = layer.project(reversed, positions);
        const std::size_t width = back.k.size() / tokens;
        double worst = 0, most = 0;
        for (std::size_t t = 0; t < tokens; ++t)
            for (std::size_t i = 0; i < width; ++i) {
                const float a = back.k.data()[t * width + i], b = whole.k.data()[(tokens - 1 - t) * width + i];
                worst = std::max(worst, static_cast<double>(std::abs(a - b)));
                most = std::max(most, static_cast<double>(std::abs(b)));
            }
        CHECK(worst <= 2e-6 * most);
        ++layers;
    });
    CHECK(layers > 300);
}

TEST_CASE("attention_layer: finish makes the latents that a gate reads") {
    // The one family with such a gate has an indexer in every block: this is its block without.
    const auto model = larql::checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/axk2_b");
    larql::attention_spec spec = model.config().blocks[0];
    REQUIRE(spec.raw_query_latent);
    REQUIRE(spec.gate != larql::output_gate::none);
    spec.indexer = {};
    auto weights = model.stored_weights(0);
    using enum larql::tensor_role;
    for (const larql::tensor_role role : {indexer_q_b, indexer_k, indexer_weights}) weights[role] = {};
    for (const larql::tensor_role role : {indexer_k_norm, indexer_k_norm_bias}) weights.vector(role) = {};
    const attention_layer<float> layer(spec, weights);
    random_source random(6);
    const auto x = random_rows(random, 9, spec.input_width());
    std::vector<std::size_t> positions(9);
    std::iota(positions.begin(), positions.end(), std::size_t{0});
    const auto parts = layer.project(x, positions);
    const auto attended = larql::gqa_attention_asym(parts.q, parts.k, parts.v, layer.options());
    CHECK(relative_error(layer.finish(attended, x), layer.forward(x).out) < 5e-6);
}

TEST_CASE("attention_layer: a call that fails leaves its caches as they were") {
    class failing_executor final : public larql::executor {
    public:
        explicit failing_executor(std::size_t good) : m_good(good) {}
        [[nodiscard]] std::size_t concurrency() const noexcept override { return 2; }
        void run(std::size_t count, larql::task_ref task) override {
            for (std::size_t i = 0; i < count; ++i) task(i);
            if (m_good-- == 0) throw std::runtime_error("no thread");
        }

    private:
        std::size_t m_good;
    };
    const auto model = larql::checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/deepseek_v3");
    random_source random(7);
    for (const attention_form form : all_forms) {
        CAPTURE(std::string(larql::to_string(form)));
        const auto layer = model.attention(0, form);
        const auto prefix = random_rows(random, 5, layer.spec().input_width());
        const auto x = random_rows(random, 6, layer.spec().input_width());
        auto cache = layer.make_cache(20), other = layer.make_cache(20);
        (void)layer.forward(prefix, cache);
        (void)layer.forward(prefix, other);
        std::size_t failures = 0, appended = 0;
        for (bool failed = true; failed && failures < 200; ++failures) {
            failing_executor threads(failures);
            larql::attention_result<float> r;
            larql::attention_workspace<float> memory;
            failed = false;
            try {
                layer.forward_into(x, cache, r, memory, {.threads = &threads});
            } catch (const std::runtime_error&) {
                failed = true;
                CHECK(cache.size() == 5);
            }
            if (!failed) break;
            appended += r.k.size() != 0;
            std::vector<cached_sequence<float>> both{{&cache, 2}, {&other, 4}};
            failing_executor again(failures);
            try {
                (void)layer.forward_batch(x, both, &again);
                for (auto* done : {&cache, &other}) done->truncate(5);
            } catch (const std::runtime_error&) {
                CHECK(cache.size() == 5);
                CHECK(other.size() == 5);
            }
        }
        CHECK(failures > 3);
        CHECK(appended > 1);
        CHECK(cache.size() == 11);
    }
}

TEST_CASE("attention_layer: a batch of sequences is each sequence's own forward") {
    random_source random(2);
    larql::thread_pool pool(2);
    for_each_plain_layer([&](const attention_layer<float>& layer) {
        if (layer.spec().rope.doubling) return;  // takes a sequence in one call alone
        const std::size_t width = layer.spec().input_width();
        const std::size_t before[] = {13, 0, 5, 30, 2}, added[] = {1, 1, 7, 0, 40};
        std::vector<kv_cache<float>> caches, single;
        std::vector<cached_sequence<float>> sequences;
        for (std::size_t i = 0; i < 5; ++i) {
            const auto prefix = random_rows(random, before[i], width);
            for (auto* list : {&caches, &single}) {
                list->push_back(layer.make_cache(80));
                if (before[i] != 0) (void)layer.forward(prefix, list->back());
            }
        }
        for (std::size_t i = 0; i < 5; ++i) sequences.push_back({&caches[i], added[i]});
        const auto x = random_rows(random, 49, width);
        const auto batch = layer.forward_batch(x, sequences, &pool);
        for (std::size_t i = 0, row = 0; i < 5; row += added[i++]) {
            CAPTURE(i);
            CHECK(caches[i].size() == before[i] + added[i]);
            if (added[i] == 0) continue;
            const auto own = layer.forward(rows_of(x, row, added[i]), single[i]);
            CHECK(relative_error(rows_of(batch.out, row, added[i]), own.out) < 5e-6);
            CHECK(relative_error(rows_of(batch.context, row, added[i]), own.context) < 5e-6);
        }
        // They go on together.
        const auto next = random_rows(random, 5, width);
        for (cached_sequence<float>& s : sequences) s.tokens = 1;
        const auto then = layer.forward_batch(next, sequences);
        for (std::size_t i = 0; i < 5; ++i) {
            const auto own = layer.forward(rows_of(next, i, 1), single[i]);
            CHECK(relative_error(rows_of(then.out, i, 1), own.out) < 5e-6);
        }
    });
}

TEST_CASE("attention_layer: a batch that does not fit is refused, and leaves the caches as they were") {
    const auto model = larql::checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/llama3");
    const auto layer = model.attention(0, attention_form::factored);
    random_source random(3);
    auto a = layer.make_cache(8), b = layer.make_cache(3);
    const auto x = random_rows(random, 4, layer.spec().input_width());
    const auto attempt = [&](std::vector<cached_sequence<float>> sequences, larql::executor* threads = nullptr) {
        std::string text;
        try {
            (void)layer.forward_batch(x, sequences, threads);
        } catch (const larql::error& e) {
            text = std::string(larql::to_string(e.code())) + " " + e.what();
        }
        CHECK(a.size() == 0);
        CHECK(b.size() == 0);
        return text;
    };
    CHECK(attempt({{&a, 2}, {&b, 1}}) == "shape_mismatch sequences: x has 4 rows, the sequences have 3 tokens");
    CHECK(attempt({{&a, 2}, {&a, 2}}) == "bad_value cache: that of sequence 1 is given twice");
    CHECK(attempt({{&a, 2}, {nullptr, 2}}) == "bad_value cache: that of sequence 1 is null");
    CHECK(attempt({{&a, 0}, {&b, 4}}).starts_with("limit_exceeded"));
    auto other = kv_cache<float>({.capacity = 8, .kv_heads = 1, .key_size = 3, .value_size = 3});
    CHECK(attempt({{&a, 2}, {&other, 2}}).starts_with("shape_mismatch cache: the layer caches"));
    struct failing : larql::executor {
        std::size_t left;
        explicit failing(std::size_t n) : left(n) {}
        [[nodiscard]] std::size_t concurrency() const noexcept override { return 1; }
        void run(std::size_t tasks, larql::task_ref task) override {
            if (left-- == 0) throw larql::error(errc::io, "the executor failed");
            for (std::size_t i = 0; i < tasks; ++i) task(i);
        }
    };
    std::size_t failures = 0;
    for (std::size_t runs = 0;; ++runs) {  // at each of its runs
        failing threads(runs);
        std::string text;
        try {
            const std::vector<cached_sequence<float>> sequences{{&a, 3}, {&b, 1}};
            (void)layer.forward_batch(x, sequences, &threads);
            break;
        } catch (const larql::error&) {
            ++failures;
            CHECK(a.size() == 0);
            CHECK(b.size() == 0);
        }
    }
    CHECK(failures > 3);
    CHECK(a.size() == 3);

    const auto sparse = larql::checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/deepseek_v32");
    const auto indexed = sparse.attention(0, attention_form::factored);
    const std::vector<std::size_t> positions{0};
    const auto one = random_rows(random, 1, indexed.spec().input_width());
    const auto code = [](const auto& call) {
        try {
            call();
        } catch (const larql::error& e) {
            return e.code();
        }
        return errc::io;
    };
    CHECK(code([&] { (void)indexed.project(one, positions); }) == errc::unsupported_architecture);
    const auto compressed = larql::checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/deepseek_v4_mixed");
    const auto entries = compressed.attention(0, attention_form::factored);
    const auto row = random_rows(random, 1, entries.spec().input_width());
    CHECK(code([&] { (void)entries.forward_batch(row, std::vector<cached_sequence<float>>{}); }) ==
          errc::unsupported_architecture);
    CHECK(code([&] { (void)layer.project(x, positions); }) == errc::shape_mismatch);
    CHECK(code([&] { (void)layer.finish(tensor<float, 3>::from_shape({4, 1, 2}), x); }) == errc::shape_mismatch);
}

TEST_CASE("attention_layer: no tokens give no rows, and leave the caches as they were") {
    for_each_plain_layer([](const attention_layer<float>& layer) {
        const auto none = tensor<float, 2>::from_shape({0, layer.spec().input_width()});
        const auto made = layer.project(none, {});
        CHECK(made.q.shape(0) == 0);
        CHECK(made.k.shape(2) == layer.forward(none).k.shape(2));
        const std::size_t heads = layer.spec().geometry.num_heads;
        const bool latent = layer.spec().form == attention_form::latent;
        const std::size_t size = latent ? layer.spec().geometry.kv_lora_rank : layer.spec().geometry.v_head_dim;
        CHECK(layer.finish(tensor<float, 3>::from_shape({0, heads, size}), none).size() == 0);
        auto cache = layer.make_cache(4);
        CHECK(layer.forward(none, cache).out.size() == 0);
        const std::vector<cached_sequence<float>> sequences{{&cache, 0}};
        CHECK(layer.forward_batch(none, sequences).out.size() == 0);
        CHECK(layer.forward_batch(none, std::vector<cached_sequence<float>>{}).out.size() == 0);
        CHECK(cache.empty());
    });
}

TEST_CASE("attention_layer: a cache that drops what the window has left behind gives what a whole one gives") {
    random_source random(4);
    std::size_t windows = 0;
    for_each_plain_layer([&](const attention_layer<float>& layer) {
        const std::size_t width = layer.spec().input_width(), steps = 45;
        const std::size_t many = 40;  // so many that contexts of latents may be made from expanded ones
        auto whole = layer.make_cache(steps + 2 + many);
        if (reach(layer) == 0 || reach(layer) > 30) {
            (void)layer.forward(random_rows(random, 5, width), whole);
            CHECK(layer.unneeded(whole) == 0);
            whole.drop_front(1);
            CHECK_THROWS_AS((void)layer.forward(random_rows(random, 1, width), whole), larql::error);
            return;
        }
        ++windows;
        auto dropping = layer.make_cache(reach(layer) + 3 + many);
        for (std::size_t step = 0; step < steps;) {
            const std::size_t count = step % 3 == 0 ? 2 : 1;
            const auto x = random_rows(random, count, width);
            dropping.drop_front(layer.unneeded(dropping));
            CHECK(dropping.next_position() == whole.size());
            const auto want = layer.forward(x, whole), got = layer.forward(x, dropping);
            CHECK(relative_error(got.out, want.out) < 5e-6);
            step += count;
        }
        CHECK(dropping.first_position() > 0);
        // In a batch, too.
        for (const std::size_t count : {std::size_t{1}, many}) {
            dropping.drop_front(layer.unneeded(dropping));
            const auto x = random_rows(random, count, width);
            const std::vector<cached_sequence<float>> sequences{{&dropping, count}};
            const auto got = layer.forward_batch(x, sequences);
            CHECK(relative_error(got.out, layer.forward(x, whole).out) < 5e-6);
        }
        dropping.drop_front(dropping.size());
        const auto x = random_rows(random, 1, width);
        const bool sees_back = layer.unneeded(dropping) == 0 && dropping.first_position() % reach(layer) != 0;
        if (sees_back && reach(layer) > 1) CHECK_THROWS_AS((void)layer.forward(x, dropping), larql::error);
        dropping.clear();
        CHECK(dropping.next_position() == 0);
    });
    CHECK(windows > 10);
}

TEST_CASE("attention_layer: a cache that begins with another's prefix goes on as that sequence would") {
    random_source random(5);
    for_each_plain_layer([&](const attention_layer<float>& layer) {
        const std::size_t width = layer.spec().input_width();
        if (layer.spec().rope.doubling) return;
        auto first = layer.make_cache(20), second = layer.make_cache(20);
        (void)layer.forward(random_rows(random, 9, width), first);
        second.append_from(first, 0, 6);
        second.append_from(first, 6, 9);
        const auto x = random_rows(random, 3, width);
        CHECK(layer.forward(x, second).out == layer.forward(x, first).out);
        CHECK(second.size() == 12);
    });
}
