// SPDX-License-Identifier: Apache-2.0
//
// A model's attention at a context, as JSON and as text.
#ifndef LARQL_EXAMPLES_SUPPORT_PLAN_HPP
#define LARQL_EXAMPLES_SUPPORT_PLAN_HPP

#include <larql/attention_plan.hpp>
#include <larql/checkpoint.hpp>

#include "units.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <utility>

namespace larql::program {

/// What can be cheapest, and what it is called.
inline constexpr std::pair<const char*, std::uint64_t form_plan::*> planned_costs[] = {
    {"weight_bytes", &form_plan::weight_bytes},
    {"kv_cache_bytes", &form_plan::cache_f16_bytes},
    {"decode_bytes", &form_plan::decode_bytes},
    {"decode_flops", &form_plan::decode_flops},
    {"prefill_bytes", &form_plan::prefill_bytes_per_token},
    {"prefill_flops", &form_plan::prefill_flops_per_token},
};

/// The object "plan": each form's costs, and for each cost the forms that are cheapest from a context on.
inline nlohmann::ordered_json plan_json(const checkpoint& model, std::uint64_t context) {
    using json = nlohmann::ordered_json;
    const attention_plan plan(model);
    const attention_form stored = model.config().form;
    json out = {{"context", context}, {"forms", json::object()}, {"cheapest", json::object()}};
    for (const form_plan& costs : plan.at(context)) {
        const bool made = costs.form == attention_form::dense && stored != attention_form::dense;
        const bool tensors = !model.format().empty();
        out["forms"][std::string(to_string(costs.form))] = {
            {"weights", !tensors ? "all as BF16"
                        : made   ? "q, k, v made as BF16"
                                 : "as stored"},
            {"weight_bytes", costs.weight_bytes},
            {"kv_cache_bytes",
             {{"f16", costs.cache_f16_bytes},
              {"f32", costs.cache_f32_bytes},
              {"f16_still_seen", costs.cache_seen_bytes}}},
            {"decode", {{"bytes_per_token", costs.decode_bytes}, {"flops_per_token", costs.decode_flops}}},
            {"prefill",
             {{"bytes_per_token", costs.prefill_bytes_per_token}, {"flops_per_token", costs.prefill_flops_per_token}}}};
    }
    for (const auto& [name, cost] : planned_costs)
        for (const cheapest_form& best : plan.cheapest(cost))
            out["cheapest"][name].push_back({{"from", best.from}, {"form", to_string(best.form)}});
    if (!model.supports(attention_form::latent) || !model.supports(attention_form::dense)) return out;
    for (const auto& [name, cost] : {planned_costs[2], planned_costs[3]}) {
        const auto latent = plan.first_where_cheaper(attention_form::latent, attention_form::dense, cost);
        const auto dense = plan.first_where_cheaper(attention_form::dense, attention_form::latent, cost);
        const auto from = [](const auto& context_or_none) {
            return context_or_none ? json(*context_or_none) : json(nullptr);
        };
        out["latent_against_dense"][name] = {{"latent_cheaper_from", from(latent)},
                                             {"dense_cheaper_from", from(dense)}};
    }
    return out;
}

inline void print_plan(const nlohmann::ordered_json& plan) {
    const auto column = [](const std::string& text) {
        char padded[64];
        std::snprintf(padded, sizeof padded, " %15s", text.c_str());
        return std::string(padded);
    };
    std::cout << "\nattention of all blocks at " << plan["context"] << " tokens\n"
              << "form     " << column("weights") << column("cache f16") << column("cache f32")
              << column("f16 still seen") << column("decode bytes") << column("decode FLOP") << column("prefill bytes")
              << column("prefill FLOP") << "   weights are\n";
    for (const auto& [form, costs] : plan["forms"].items()) {
        const auto& cache = costs["kv_cache_bytes"];
        std::cout << form << std::string(9 - form.size(), ' ') << column(byte_text(costs["weight_bytes"]))
                  << column(byte_text(cache["f16"])) << column(byte_text(cache["f32"]))
                  << column(byte_text(cache["f16_still_seen"])) << column(byte_text(costs["decode"]["bytes_per_token"]))
                  << column(flop_text(costs["decode"]["flops_per_token"]))
                  << column(byte_text(costs["prefill"]["bytes_per_token"]))
                  << column(flop_text(costs["prefill"]["flops_per_token"])) << "   "
                  << costs["weights"].get<std::string>() << '\n';
    }
    std::cout
        << "decode and prefill are of one token; bytes of decoding are weights once and the f16 cache that it reads,\n"
           "those of a prompt its weights once and its cache written and read once, shared by its tokens\n";
    if (plan["forms"].size() < 2) return;
    for (const auto& [cost, forms] : plan["cheapest"].items()) {
        std::string text;
        for (const auto& best : forms)
            text += (text.empty() ? "" : ", ") + best["form"].get<std::string>() +
                    (forms.size() == 1 ? "" : " from " + best["from"].dump());
        std::cout << "least " << cost << std::string(15 - cost.size(), ' ') << text << '\n';
    }
    if (!plan.contains("latent_against_dense")) return;
    for (const auto& [cost, from] : plan["latent_against_dense"].items())
        for (const char* form : {"latent", "dense"})
            if (const auto& context = from[std::string(form) + "_cheaper_from"]; !context.is_null())
                std::cout << form << " has fewer " << cost << " than " << (form[0] == 'l' ? "dense" : "latent")
                          << (context == 1 ? " at any context" : " from " + context.dump() + " tokens on") << '\n';
}

}  // namespace larql::program

#endif
