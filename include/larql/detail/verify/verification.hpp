// SPDX-License-Identifier: Apache-2.0
//
// A verification: what there is to compare, divided into parts, and comparing it.
#ifndef LARQL_DETAIL_VERIFY_VERIFICATION_HPP
#define LARQL_DETAIL_VERIFY_VERIFICATION_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/verify/attention_run.hpp>
#include <larql/detail/verify/attention_tensors.hpp>
#include <larql/detail/verify/configuration.hpp>
#include <larql/detail/verify/report.hpp>
#include <larql/detail/verify/tensor_pairs.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/verify.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// The part, from 0, that does each piece of work: the largest first, each to the part that has least.
inline std::vector<std::size_t> divide_work(std::span<const std::uint64_t> bytes, std::size_t parts) {
    std::vector<std::size_t> order(bytes.size()), part_of(bytes.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, [&](std::size_t i, std::size_t j) { return bytes[i] > bytes[j]; });
    std::vector<std::uint64_t> load(parts, 0);
    for (const std::size_t i : order) {
        part_of[i] = static_cast<std::size_t>(std::ranges::min_element(load) - load.begin());
        load[part_of[i]] += std::max<std::uint64_t>(bytes[i], 1);
    }
    return part_of;
}

/// One verification: what there is to compare, and comparing it.
class verification {
public:
    verification(const checkpoint& a, const checkpoint& b, const verify_options& options)
        : m_a(a), m_b(b), m_options(options) {
        if (options.parts == 0 || options.part == 0 || options.part > options.parts)
            fail(errc::bad_value, concat({"expected a part from 1 to ", options.parts, ", got ", options.part}),
                 {.subject = "part"});
        choose_blocks();
        m_report.configuration = configuration_differences(a, b, m_begin, m_end);
        m_tensors = match_tensors(a, b, m_layers);
        append(m_report.only_in_a, std::move(m_tensors.only_in_a));
        append(m_report.only_in_b, std::move(m_tensors.only_in_b));
        append(m_report.towers, std::move(m_tensors.towers));
        choose_part();
    }

    verify_report run() {
        with_executor(m_options.threads, true, [&](executor& threads) {
            for (const std::size_t block : m_blocks) {  // each uses all threads
                run_block(block, threads);
                advance(block_bytes(block));
            }
            std::vector<tensor_check> checks(m_tensors.pairs.size());
            threads.run(checks.size(), [&](std::size_t i) {
                const tensor_pair& pair = m_tensors.pairs[i];
                checks[i] = compare_pair(m_a, m_b, pair);
                advance(pair.a.bytes + pair.b.bytes);
            });
            m_report.tensors.insert(m_report.tensors.end(), checks.begin(), checks.end());
        });
        return std::move(m_report);
    }

private:
    static void append(std::vector<std::string>& to, std::vector<std::string>&& more) {
        to.insert(to.end(), more.begin(), more.end());
    }

    /// The blocks that both sides hold; others are missing on one side.
    void choose_blocks() {
        const model_config &x = m_a.config(), &y = m_b.config();
        m_begin = m_options.layer_begin;
        m_end = std::min(m_options.layer_end, std::max(x.blocks.size(), y.blocks.size()));
        if (m_begin >= m_end && !(x.blocks.empty() && y.blocks.empty()))
            fail(errc::bad_value,
                 concat({"expected attention blocks within 0 to ", std::max(x.blocks.size(), y.blocks.size()), ", got ",
                         m_begin, " to ", m_end}),
                 {.subject = "layers"});
        const auto holds = [](const model_config& model, std::size_t block) {
            return block >= model.block_begin && block < model.block_end;
        };
        m_layers.all = m_begin == 0 && m_end == std::max(x.blocks.size(), y.blocks.size());
        for (std::size_t block = m_begin; block < m_end; ++block) {
            const bool in_a = holds(x, block), in_b = holds(y, block);
            if (in_a && in_b) m_blocks.push_back(block);
            if (in_a && !in_b) m_report.only_in_a.push_back(concat({"attention block ", block}));
            if (in_b && !in_a) m_report.only_in_b.push_back(concat({"attention block ", block}));
            if (block < x.blocks.size()) m_layers.layers.insert(x.blocks[block].layer);
        }
    }

    /// Stored bytes of a block's attention on both sides.
    [[nodiscard]] std::uint64_t block_bytes(std::size_t block) const {
        std::uint64_t bytes = 0;
        for (const checkpoint* model : {&m_a, &m_b})
            for (const role_row& row : attention_roles) {
                const auto found = model->locate(row.role, block);
                if (!found || !row.needed(model->spec(block), model->spec(block).form)) continue;
                for (const larql::stored_rows& part : found->parts)
                    if (const auto stored = model->weights().find(part.name)) bytes += stored->stored_bytes();
            }
        return bytes;
    }

    /// Leaves the blocks and tensors of this part.
    void choose_part() {
        std::vector<std::uint64_t> bytes;
        for (const std::size_t block : m_blocks) bytes.push_back(block_bytes(block));
        for (const tensor_pair& pair : m_tensors.pairs) bytes.push_back(pair.a.bytes + pair.b.bytes);
        const std::vector<std::size_t> part_of = divide_work(bytes, m_options.parts);
        const auto mine = [&](std::size_t i) { return part_of[i] == m_options.part - 1; };
        for (std::size_t i = 0; i < bytes.size(); ++i)
            if (mine(i)) m_total += bytes[i];
        std::vector<std::size_t> blocks;
        for (std::size_t i = 0; i < m_blocks.size(); ++i)
            if (mine(i)) blocks.push_back(m_blocks[i]);
        std::vector<tensor_pair> pairs;
        for (std::size_t i = 0; i < m_tensors.pairs.size(); ++i)
            if (mine(m_blocks.size() + i)) pairs.push_back(std::move(m_tensors.pairs[i]));
        m_blocks = std::move(blocks);
        m_tensors.pairs = std::move(pairs);
    }

    void run_block(std::size_t block, executor& threads) {
        const attention_spec& spec = m_a.spec(block);
        attention_check check{.block = block, .layer = spec.layer, .form_a = spec.form, .form_b = m_b.spec(block).form};
        try {
            run_attention(m_a, m_b, m_options.tolerance, &threads, check);
            attention_tensor_comparison(m_a, m_b, check, m_report.tensors).run();
        } catch (const error& e) {
            check.problem = e.what();
        }
        m_report.attention.push_back(std::move(check));
    }

    void advance(std::uint64_t bytes) {
        const std::lock_guard lock(m_mutex);
        m_done += bytes;
        if (m_options.progress) m_options.progress(m_done, m_total);
    }

    const checkpoint& m_a;
    const checkpoint& m_b;
    const verify_options& m_options;
    std::size_t m_begin = 0, m_end = 0;
    layer_choice m_layers{};
    std::vector<std::size_t> m_blocks{};
    matched_tensors m_tensors{};
    verify_report m_report{};
    std::mutex m_mutex{};
    std::uint64_t m_done = 0, m_total = 0;
};

}  // namespace larql::detail

#endif
