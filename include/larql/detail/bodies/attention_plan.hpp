// SPDX-License-Identifier: Apache-2.0
//
// The bodies of attention_plan.hpp.
#ifndef LARQL_DETAIL_BODIES_ATTENTION_PLAN_HPP
#define LARQL_DETAIL_BODIES_ATTENTION_PLAN_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_plan.hpp>
#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/planned_costs.hpp>
#include <larql/detail/saturating.hpp>
#include <larql/detail/separate.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql {

LARQL_INLINE form_plan plan_form(std::span<const planned_block> blocks, attention_form form, std::uint64_t context) {
    constexpr std::uint64_t most = std::uint64_t{1} << 32;
    if (context == 0 || context > most)
        detail::fail(errc::bad_value, detail::concat({"expected 1 to ", most, " tokens, got ", context}),
                     {.subject = "context"});
    using detail::planned;
    using detail::saturating;
    saturating weights = 0, numbers = 0, floats = 0, seen = 0, read = 0, shared = 0, decode = 0, prefill = 0;
    for (const planned_block& block : blocks) {
        const detail::block_plan plan = detail::plan_block(*block.spec, form, context);
        weights += block.weight_bytes;
        numbers += plan.cache_numbers;
        floats += plan.cache_floats * sizeof(float);
        seen += plan.seen_numbers;
        read += plan.read_numbers;
        shared += plan.shared_numbers;
        decode += plan.decode_flops;
        prefill += plan.prefill_flops;
    }
    const saturating cache = numbers * 2 + floats;
    return {.form = form,
            .weight_bytes = planned(weights, "weight bytes"),
            .cache_f16_bytes = planned(cache, "cache bytes"),
            .cache_f32_bytes = planned(numbers * 4 + floats, "cache bytes"),
            .cache_seen_bytes = planned(seen * 2 + floats, "cache bytes"),
            .decode_flops = planned(decode, "operations"),
            .decode_bytes = planned(weights + read * 2, "bytes of decoding"),
            .prefill_flops_per_token = planned(prefill, "operations"),
            .prefill_bytes_per_token = planned((weights + cache * 2 + shared * 2) / context, "bytes of a prompt")};
}

LARQL_INLINE attention_plan::attention_plan(const checkpoint& model, dtype made) {
    const model_config& config = model.config();
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        if (!model.supports(form)) continue;
        std::vector<planned_block> blocks;
        for (std::size_t block = config.block_begin; block < config.block_end; ++block)
            blocks.push_back({&config.blocks[block],
                              detail::planned(detail::weight_bytes_of(model, block, form, made), "weight bytes")});
        m_forms.emplace_back(form, std::move(blocks));
    }
    m_model = std::make_shared<const checkpoint>(model);
}

LARQL_INLINE std::vector<form_plan> attention_plan::at(std::uint64_t context) const {
    std::vector<form_plan> plans;
    for (const auto& [form, blocks] : m_forms) plans.push_back(plan_form(blocks, form, context));
    return plans;
}

LARQL_INLINE std::vector<cheapest_form> attention_plan::cheapest(std::uint64_t form_plan::*cost) const {
    std::vector<cheapest_form> out;
    if (m_forms.empty()) return out;
    out.push_back({1, best(cost, 1)});
    for (std::uint64_t from = 1; from < longest_searched;) {
        // A coarse walk finds where the best form changes, halving then finds the token.
        const std::uint64_t next = std::min(from + std::max<std::uint64_t>(from / 8, 1), longest_searched);
        std::uint64_t low = from, high = next;
        if (best(cost, high) != out.back().form) {
            while (high - low > 1) {
                const std::uint64_t middle = low + (high - low) / 2;
                (best(cost, middle) == out.back().form ? low : high) = middle;
            }
            out.push_back({high, best(cost, high)});
        }
        from = high;
    }
    return out;
}

LARQL_INLINE std::optional<std::uint64_t> attention_plan::first_where_cheaper(attention_form form, attention_form than,
                                                                              std::uint64_t form_plan::*cost) const {
    const auto cheaper = [&](std::uint64_t context) {
        return plan_form(blocks_of(form), form, context).*cost < plan_form(blocks_of(than), than, context).*cost;
    };
    std::uint64_t low = 0, high = longest_searched;
    if (!cheaper(high)) return std::nullopt;
    while (high - low > 1) {
        const std::uint64_t middle = low + (high - low) / 2;
        (cheaper(middle) ? high : low) = middle;
    }
    return high;
}

LARQL_INLINE std::span<const planned_block> attention_plan::blocks_of(attention_form form) const {
    for (const auto& [each, blocks] : m_forms)
        if (each == form) return blocks;
    detail::fail(errc::bad_value, "the model cannot be computed in this form",
                 {.subject = std::string(to_string(form))});
}

LARQL_INLINE attention_form attention_plan::best(std::uint64_t form_plan::*cost, std::uint64_t context) const {
    const std::vector<form_plan> plans = at(context);
    return std::ranges::min_element(plans, {}, cost)->form;
}

}  // namespace larql

#endif
