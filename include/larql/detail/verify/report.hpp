// SPDX-License-Identifier: Apache-2.0
//
// What a verification found, which users see through verify.hpp.
#ifndef LARQL_DETAIL_VERIFY_REPORT_HPP
#define LARQL_DETAIL_VERIFY_REPORT_HPP

#include <larql/attention_form.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace larql {

/// How two tensors that stand for the same numbers agree, best first.
enum class tensor_agreement : std::uint8_t {
    identical,    ///< stored in the same type, bit for bit
    equal,        ///< of different types, or put together from others: the same numbers
    rounded,      ///< every number is that of the other side, rounded to nearest in its own type
    within_step,  ///< no number is further off than the steps of both formats (detail/verify/steps.hpp)
    one_added,    ///< gains of a norm, to which one container adds 1
    different,    ///< anything else
};

constexpr std::string_view to_string(tensor_agreement agreement) noexcept {
    switch (agreement) {
        case tensor_agreement::identical: return "identical";
        case tensor_agreement::equal: return "equal";
        case tensor_agreement::rounded: return "rounded";
        case tensor_agreement::within_step: return "within_step";
        case tensor_agreement::one_added: return "one_added";
        case tensor_agreement::different: return "different";
    }
    return "unknown";
}

/// One tensor, or the part of one that an expert has, on both sides.
struct tensor_check {
    std::string name_a{}, name_b{};  ///< from the files: print them through larql::printable
    std::string type_a{}, type_b{};
    tensor_agreement result = tensor_agreement::different;
    std::uint64_t elements = 0;
    std::uint64_t numbers_differing = 0;  ///< that are not the same float
    double largest_error = 0.0;           ///< absolute
    double largest_in_steps = 0.0;        ///< the same over the steps of both formats; infinite where they have none
    std::string problem{};                ///< why they differ; "" if they agree

    [[nodiscard]] bool holds() const noexcept { return result != tensor_agreement::different; }
};

/// One attention block on both sides.
struct attention_check {
    std::size_t block = 0, layer = 0;
    attention_form form_a{}, form_b{};  ///< in which each side was computed: the one that it stores
    std::size_t tokens = 0;             ///< that went through both
    double error = 0.0;                 ///< worst of context and output, over the largest magnitude of the first side's
    std::size_t selected = 0;           ///< keys that a sparse block's indexer chose, of all tokens
    std::size_t chosen_otherwise = 0;   ///< of these, keys that the second side's indexer did not choose
    std::vector<std::string> not_compared{};  ///< its tensors that only the attention covers, a sentence each
    std::string problem{};                    ///< why it does not hold; "" if it does

    [[nodiscard]] bool holds() const noexcept { return problem.empty(); }
};

/// What a verification found. A report of a part lists all that is missing, and what it compared.
struct verify_report {
    std::vector<std::string> configuration{};  ///< where what the models are disagrees, a sentence each
    std::vector<attention_check> attention{};
    std::vector<tensor_check> tensors{};
    std::vector<std::string> only_in_a{}, only_in_b{};  ///< names from the files: print them through larql::printable
    /// Tensors of what sees or hears, where one side is GGUF, which has these in a file of their own; names likewise.
    std::vector<std::string> towers{};

    /// Whether everything agrees.
    [[nodiscard]] bool holds() const noexcept {
        const auto good = [](const auto& check) { return check.holds(); };
        return configuration.empty() && only_in_a.empty() && only_in_b.empty() &&
               std::ranges::all_of(attention, good) && std::ranges::all_of(tensors, good);
    }
};

}  // namespace larql

#endif
