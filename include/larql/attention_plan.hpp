// SPDX-License-Identifier: Apache-2.0
//
// What a model's attention costs at a given context in each form, and which form is cheapest where. attention_cost.hpp
// has the costs of one block and one key; this header counts the keys: a window, a chunk, the selection of a sparse
// block and the entries of compressed attention bound what a token reads, and not what is computed for it.
#ifndef LARQL_ATTENTION_PLAN_HPP
#define LARQL_ATTENTION_PLAN_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/separate.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace larql {

/// The attention of all blocks of a model in one form, at one context. A key or value is counted as f16, 2 bytes.
struct form_plan {
    attention_form form = attention_form::factored;
    std::uint64_t weight_bytes = 0;      ///< of all tensors that the form computes with
    std::uint64_t cache_f16_bytes = 0;   ///< of larql's kv_cache, which keeps all tokens, with f16 elements
    std::uint64_t cache_f32_bytes = 0;   ///< the same with float elements, which make_cache takes unless asked
    std::uint64_t cache_seen_bytes = 0;  ///< f16, of the tokens alone that the next token may still see
    /// For one token at the end of the context: its projections and its attention to what it sees.
    std::uint64_t decode_flops = 0;
    /// For the same: every weight once, and the cached numbers that it reads.
    std::uint64_t decode_bytes = 0;
    /// For a token of a prompt as long as the context, on average.
    std::uint64_t prefill_flops_per_token = 0;
    /// For the same: the weights once for the prompt, each key and value written once and read once by each block that
    /// attends to it. A lower bound: prompts that do not fit the processor's caches read keys again.
    std::uint64_t prefill_bytes_per_token = 0;
};

/// Sizes of one block that a plan goes by.
struct planned_block {
    const attention_spec* spec = nullptr;
    std::uint64_t weight_bytes = 0;  ///< in the form that is planned
};

/// The plan of some blocks in a form.
///
/// @param context  tokens, of a prompt or of the cache with the new token, from 1 to 2^32
/// @throws error errc::bad_value for another context, errc::limit_exceeded where a count does not fit 64 bits
LARQL_INLINE form_plan plan_form(std::span<const planned_block> blocks, attention_form form, std::uint64_t context);

/// From a number of tokens on, up to the next entry of a list, one form costs least.
struct cheapest_form {
    std::uint64_t from = 1;
    attention_form form = attention_form::factored;
};

/// A model's attention in every form that it has.
class attention_plan {
public:
    /// @param made  type of the tensors that absorption would make: f32, f16 or bf16
    /// @throws error what `checkpoint::config` throws; errc::limit_exceeded for weights that 64 bits do not count
    explicit attention_plan(const checkpoint& model, dtype made = dtype::bf16);

    /// One plan for each form, factored first.
    [[nodiscard]] std::vector<form_plan> at(std::uint64_t context) const;

    /// Which form costs least at which context, by one member of form_plan. Of equals the first in the order of `at`.
    /// Contexts up to 2^20 tokens are looked at; beyond, the last entry holds as far as costs grow as before.
    [[nodiscard]] std::vector<cheapest_form> cheapest(std::uint64_t form_plan::*cost) const;

    /// From how many tokens on one form costs less than another, or nothing if it does not at 2^20 tokens. Two forms
    /// see the same keys, so that the difference of their costs changes its sign once at most; chunks of keys, where
    /// costs fall again, are the exception, and no latent attention has them.
    /// @throws error errc::bad_value for a form that the model does not have
    [[nodiscard]] std::optional<std::uint64_t> first_where_cheaper(attention_form form, attention_form than,
                                                                   std::uint64_t form_plan::*cost) const;

private:
    static constexpr std::uint64_t longest_searched = std::uint64_t{1} << 20;

    [[nodiscard]] std::span<const planned_block> blocks_of(attention_form form) const;
    [[nodiscard]] attention_form best(std::uint64_t form_plan::*cost, std::uint64_t context) const;

    std::shared_ptr<const checkpoint> m_model;  // whose specs the blocks refer to
    std::vector<std::pair<attention_form, std::vector<planned_block>>> m_forms;
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/attention_plan.hpp>
#endif

#endif
