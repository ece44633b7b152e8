// SPDX-License-Identifier: Apache-2.0
//
// Batches of sequences through blocks with a sparse indexer: each sequence gets what calls of its own give.
#include <larql/checkpoint.hpp>
#include <larql/executor.hpp>
#include <larql/kv_cache.hpp>

#include <support/failing_executor.hpp>
#include <support/random.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_layer;
using larql::cached_sequence;
using larql::checkpoint;
using larql::errc;
using larql::forward_options;
using larql::key_selection;
using larql::kv_cache;
using larql::tensor;
using larql::testing::failing_executor;
using larql::testing::random_rows;
using larql::testing::random_source;
using larql::testing::relative_error;
using larql::testing::rows_of;

constexpr std::size_t sequences = 5, capacity = 90;
using sizes = std::array<std::size_t, sequences>;

checkpoint open(const std::string& name) { return checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/" + name); }

/// A model's blocks, one sequence at a time and all at once, on the same hidden states.
class both_ways {
public:
    both_ways(const checkpoint& model, attention_form form) : m_model(model), m_random(11) {
        for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
            m_layers.push_back(model.attention(block, form));
            const auto& spec = m_layers.back().spec();
            for (auto* caches : {&m_single[block], &m_batch[block]})
                for (std::size_t i = 0; i < sequences; ++i)
                    if (!spec.kv_layer || spec.indexer.own()) caches->push_back(m_layers.back().make_cache(capacity));
        }
    }

    /// So many new tokens of each sequence through all blocks.
    void step(const sizes& added, larql::executor* threads) {
        std::size_t total = 0;
        for (const std::size_t tokens : added) total += tokens;
        std::array<key_selection, sequences> of_singles;
        key_selection of_batch;
        for (std::size_t block = 0; block < m_layers.size(); ++block) {
            CAPTURE(block);
            const attention_layer<float>& layer = m_layers[block];
            const bool shares = layer.spec().indexer.shared,
                       apart = layer.spec().kv_layer && layer.spec().indexer.own();
            const std::size_t source = m_model.config().kv_block(block);
            const auto x = random_rows(m_random, total, layer.spec().input_width());
            std::vector<cached_sequence<float>> list;
            for (std::size_t i = 0; i < sequences; ++i)
                list.push_back({&m_batch[source][i], added[i], apart ? &m_batch[block][i] : nullptr});
            const auto batch =
                layer.forward_batch(x, list, {.selection = shares ? &of_batch : nullptr, .threads = threads});
            key_selection chosen;
            for (std::size_t i = 0, row = 0; i < sequences; row += added[i++]) {
                CAPTURE(i);
                if (added[i] == 0) continue;
                const forward_options given{.selection = shares ? &of_singles[i] : nullptr};
                const auto part = rows_of(x, row, added[i]);
                kv_cache<float>& cache = m_single[source][i];
                const auto own =
                    apart ? layer.forward(part, cache, m_single[block][i], given) : layer.forward(part, cache, given);
                CHECK(relative_error(rows_of(batch.out, row, added[i]), own.out) < 1e-5);
                CHECK(relative_error(rows_of(batch.context, row, added[i]), own.context) < 1e-5);
                CHECK(m_batch[source][i].size() == cache.size());
                of_singles[i] = own.selection;
                listed += own.selection.tokens();
                CHECK((own.selection.empty() || !batch.selection.empty()));
                for (std::size_t t = 0; t < added[i]; ++t) {
                    if (batch.selection.empty()) continue;
                    std::vector<std::uint32_t> all(cache.size() - added[i] + t + 1);  // of a sequence that sees all
                    std::iota(all.begin(), all.end(), 0U);
                    CHECK(std::ranges::equal(batch.selection.of(row + t), own.selection.empty()
                                                                              ? std::span<const std::uint32_t>(all)
                                                                              : own.selection.of(t)));
                }
            }
            if (!batch.selection.empty()) CHECK(batch.selection.tokens() == total);
            of_batch = batch.selection;
        }
    }

    std::size_t listed = 0;  ///< tokens that chose among keys

private:
    const checkpoint& m_model;
    random_source m_random;
    std::vector<attention_layer<float>> m_layers{};
    std::map<std::size_t, std::vector<kv_cache<float>>> m_single{}, m_batch{};  // by block
};

}  // namespace

TEST_CASE("sparse batch: every sequence gets what its own calls give, whoever of them chooses among keys") {
    larql::thread_pool pool(2);
    for (const std::string name : {"deepseek_v32_yarn", "deepseek_v32_bias", "glm_moe_dsa", "hy_v4", "glm5_next",
                                   "axk2_b", "dots3_indexed_b", "mistral_large4"}) {
        CAPTURE(name);
        const checkpoint model = open(name);
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            if (!model.supports(form)) continue;
            CAPTURE(std::string(larql::to_string(form)));
            both_ways blocks(model, form);
            blocks.step({4, 0, 20, 2, 1}, &pool);  // few of them have more tokens than are chosen
            blocks.step({1, 3, 1, 0, 1}, nullptr);
            blocks.step({30, 1, 7, 1, 1}, &pool);
            blocks.step({1, 1, 1, 1, 1}, &pool);
            CHECK(blocks.listed > 20);
        }
    }
}

TEST_CASE("sparse batch: what does not fit is refused, and leaves the caches as they were") {
    const checkpoint model = open("glm_moe_dsa");  // full, full, shared, shared
    const auto own = model.attention(0, attention_form::factored),
               shared = model.attention(2, attention_form::factored);
    random_source random(5);
    const auto x = random_rows(random, 30, own.spec().input_width());
    kv_cache<float> a = own.make_cache(40), b = own.make_cache(40), c = shared.make_cache(40),
                    d = shared.make_cache(40);
    const std::vector<cached_sequence<float>> of_own{{&a, 28}, {&b, 2}}, of_shared{{&c, 28}, {&d, 2}};
    const auto problem = [&](const auto& layer, const auto& list, const key_selection* selection) {
        std::string text;
        try {
            (void)layer.forward_batch(x, list, forward_options{.selection = selection});
        } catch (const larql::error& e) {
            text = std::string(larql::to_string(e.code())) + " " + e.what();
        }
        for (const auto& one : list) CHECK(one.cache->size() == 0);
        return text;
    };
    const auto contains = [](const std::string& text, const char* part) { return text.find(part) != text.npos; };
    key_selection few;
    for (std::uint32_t t = 0; t < 29; ++t) few.append({&t, 1});
    CHECK(contains(problem(own, of_own, &few), "bad_value selection: is given, and the block has no use for it"));
    CHECK(contains(problem(shared, of_shared, nullptr), "bad_value selection: the block shares another's selection"));
    CHECK(contains(problem(shared, of_shared, &few), "x has 30 rows, and there are lists for 29 tokens"));
    CHECK(few.part(3, 2).keys == std::vector<std::uint32_t>{3, 4});
    CHECK(few.part(3, 2).begins == std::vector<std::size_t>{0, 1, 2});
    CHECK(few.part(3, 0).empty());
    // A sequence without new tokens needs no lists, however long it is.
    const key_selection made = own.forward(x).selection;
    (void)shared.forward(x, c, {.selection = &made});
    CHECK(shared.forward_batch(rows_of(x, 0, 1), std::vector<cached_sequence<float>>{{&c, 0}, {&d, 1}}).out.shape(0) ==
          1);
    for (kv_cache<float>* cache : {&c, &d}) cache->truncate(0);
    std::vector<cached_sequence<float>> indexed = of_own;
    indexed[0].index = &b;
    CHECK(contains(problem(own, indexed, nullptr), "bad_value index: is given, and the block has no use for it"));

    // An executor that fails at each of its calls.
    std::size_t failures = 0;
    for (bool failed = true; failed && failures < 300; ++failures) {
        failing_executor threads(failures);
        failed = false;
        try {
            (void)own.forward_batch(x, of_own, &threads);
        } catch (const std::runtime_error&) {
            failed = true;
            CHECK(a.size() == 0);
            CHECK(b.size() == 0);
        }
    }
    CHECK(failures > 5);
    CHECK(a.size() == 28);

    // Where the indexer's keys have a cache of their own: it is wanted, once for each sequence, and put back, too.
    const checkpoint large = open("mistral_large4");
    const std::size_t block = 3;
    const auto first = large.attention(large.config().kv_block(block), attention_form::latent);
    const auto other = large.attention(block, attention_form::latent);
    REQUIRE(other.spec().kv_layer);
    REQUIRE(other.spec().indexer.own());
    auto keys = first.make_cache(40), more = first.make_cache(40);
    auto index = other.make_cache(40), second = other.make_cache(40);
    const auto y = random_rows(random, 30, other.spec().input_width());
    (void)first.forward_batch(y, std::vector<cached_sequence<float>>{{&keys, 28}, {&more, 2}});
    const auto refused = [&](const std::vector<cached_sequence<float>>& list) {
        try {
            (void)other.forward_batch(y, list);
        } catch (const larql::error& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    CHECK(contains(refused({{&keys, 28}, {&more, 2}}), "index: required and not given"));
    CHECK(contains(refused({{&keys, 28, &index}, {&more, 2, &index}}), "that of sequence 1 is given twice"));
    std::size_t puts = 0;
    for (bool failed = true; failed && puts < 300; ++puts) {
        failing_executor threads(puts);
        failed = false;
        try {
            (void)other.forward_batch(y, std::vector<cached_sequence<float>>{{&keys, 28, &index}, {&more, 2, &second}},
                                      &threads);
        } catch (const std::runtime_error&) {
            failed = true;
            CHECK(index.size() == 0);
            CHECK(second.size() == 0);
            CHECK(keys.size() == 28);
        }
    }
    CHECK(puts > 5);
    CHECK(index.size() == 28);
    CHECK(second.size() == 2);
}
