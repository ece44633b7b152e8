// SPDX-License-Identifier: Apache-2.0
//
// The list of families, .github/families.md, is made from their rows: one that is older than the rows fails here.
#include <larql/detail/model/families.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace {

using larql::attention_kind;
using larql::model_family;

const std::string path = std::string(LARQL_TEST_DATA) + "/../../.github/families.md";

std::string types_of(const model_family& f) {
    std::string text;
    for (const std::string_view type : f.model_types)
        if (!type.empty()) text += (text.empty() ? "`" : ", `") + std::string(type) + "`";
    return text;
}

std::string containers_of(const model_family& f) {
    if (!f.refused.empty()) return "";
    std::string text = f.params_json ? "safetensors with `params.json`" : "safetensors";
    // What a params.json describes is read from GGUF as the family whose architecture it has there.
    if (!f.gguf_architecture.empty() && !f.params_json) text += ", GGUF `" + std::string(f.gguf_architecture) + "`";
    return text;
}

std::string forms_of(const model_family& f) {
    if (!f.refused.empty()) return "";
    return f.kind == attention_kind::mla ? "factored, dense, latent" : "factored";
}

std::string notes_of(const model_family& f) {
    if (!f.refused.empty()) {
        const bool in_gguf = f.model_types.front().empty();  // what else is called so is read
        return (in_gguf ? "GGUF `" + std::string(f.gguf_architecture) + "` is refused: " : "refused: ") +
               std::string(f.refused);
    }
    std::string text;
    const auto add = [&](const std::string& note) { text += (text.empty() ? "" : "; ") + note; };
    if (f.indexer.blocks != larql::indexer_blocks::none) add("sparse: keys are chosen by an indexer");
    if (f.linear_layers) add("only the layers that have attention");
    if (f.lists(larql::model_key::kv_source_layers)) add("layers that share latents have no dense form");
    if (f.gguf_output.written) add("written as GGUF `" + std::string(f.gguf_architecture) + "`, too");
    if (!f.gguf_loses.empty()) add("GGUF cannot hold " + std::string(f.gguf_loses));
    return text;
}

std::string made_from_rows() {
    std::string text =
        "# Families\n\nWhat larql reads, made from its rows by `tests/unit/test_conformance.cpp`: what a configuration "
        "calls\nthe model, where it is read from, the forms that its attention has, and what to know. Sequences have "
        "no "
        "limit\nbut memory. What stands in no row is refused by name.\n\n"
        "| family | `model_type` | read from | forms | notes |\n|---|---|---|---|---|\n";
    for (const model_family& f : larql::detail::families)
        text += "| " + std::string(f.name) + " | " + types_of(f) + " | " + containers_of(f) + " | " + forms_of(f) +
                " | " + notes_of(f) + " |\n";
    return text;
}

}  // namespace

TEST_CASE("the list of families is what their rows say") {
    const std::string made = made_from_rows();
    if (std::getenv("LARQL_WRITE_FAMILIES") != nullptr) std::ofstream(path) << made;
    std::ifstream file(path);
    const std::string stored{std::istreambuf_iterator<char>(file), {}};
    CHECK_MESSAGE(stored == made, "LARQL_WRITE_FAMILIES=1 test_conformance writes the list anew");
}
