// SPDX-License-Identifier: Apache-2.0
//
// larql-verify: proves that two checkpoints are the same model, in whatever forms, containers and number formats.
#include <larql/checkpoint.hpp>
#include <larql/executor.hpp>
#include <larql/printable.hpp>
#include <larql/verify.hpp>

#include <nlohmann/json.hpp>

#include "support/program.hpp"
#include "support/ranges.hpp"
#include "support/reading.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using larql::printable;
using nlohmann::ordered_json;

struct arguments {
    std::string a, b;
    std::string layers, part = "1/1";
    double tolerance = 1e-4;
    std::size_t threads = 0;
    bool checksums = false;
    bool json = false;
    larql::program::reading reading;
    std::string config_b;
};

template <class... Values>
std::string format(const char* how, Values... values) {
    char text[160];
    std::snprintf(text, sizeof text, how, values...);
    return text;
}

using checksum = std::pair<std::string, std::string>;  // digits, path

/// The checksums of the files of both, of which each part takes every N-th.
std::vector<checksum> checksums_of(const larql::checkpoint& a, const larql::checkpoint& b,
                                   const larql::program::work_part& part, larql::executor& threads) {
    std::vector<std::filesystem::path> paths;
    for (const larql::checkpoint* model : {&a, &b})
        for (const std::filesystem::path& path : model->paths()) paths.push_back(path);
    std::vector<checksum> sums;
    for (std::size_t i = part.part - 1; i < paths.size(); i += part.parts) sums.emplace_back("", paths[i].string());
    threads.run(sums.size(), [&](std::size_t i) { sums[i].first = larql::file_checksum(sums[i].second); });
    return sums;
}

/// How many tensors agree in which way.
std::map<larql::tensor_agreement, std::size_t> count_tensors(const larql::verify_report& report) {
    std::map<larql::tensor_agreement, std::size_t> counts;
    for (const larql::tensor_check& check : report.tensors) ++counts[check.result];
    return counts;
}

std::string name_of(const larql::tensor_check& check) {
    const std::string a = printable(check.name_a), b = printable(check.name_b);
    return a == b ? a : a + " / " + b;
}

/// What does not hold, in one sentence; "" if all holds.
std::string failure_of(const larql::verify_report& report) {
    std::string said;
    const auto add = [&](std::size_t count, const std::string& what, const std::string& first) {
        if (count != 0) said += (said.empty() ? "" : "; ") + std::to_string(count) + " " + what + first;
    };
    const auto first_failing = [](const auto& checks) {
        return std::ranges::find_if(checks, [](const auto& check) { return !check.holds(); });
    };
    const auto failing = [](const auto& checks) {
        return static_cast<std::size_t>(
            std::ranges::count_if(checks, [](const auto& check) { return !check.holds(); }));
    };
    if (!report.configuration.empty())
        add(report.configuration.size(),
            "facts of the configurations disagree: ", printable(report.configuration.front()));
    if (const auto block = first_failing(report.attention); block != report.attention.end())
        add(failing(report.attention),
            "attention blocks differ: ", "block " + std::to_string(block->block) + ": " + printable(block->problem));
    if (const auto tensor = first_failing(report.tensors); tensor != report.tensors.end())
        add(failing(report.tensors), "tensors differ: ", name_of(*tensor) + " " + printable(tensor->problem));
    if (!report.only_in_a.empty())
        add(report.only_in_a.size(), "only in the first: ", printable(report.only_in_a.front()));
    if (!report.only_in_b.empty())
        add(report.only_in_b.size(), "only in the second: ", printable(report.only_in_b.front()));
    return said;
}

void print_attention(const larql::verify_report& report) {
    if (report.attention.empty()) return;
    std::cout << "block  layer  forms                tokens  relative error\n";
    for (const larql::attention_check& check : report.attention) {
        const std::string forms = std::string(to_string(check.form_a)) + " / " + std::string(to_string(check.form_b));
        std::cout << format("%5zu  %5zu  %-19s  %6zu  %-14.3g", check.block, check.layer, forms.c_str(), check.tokens,
                            check.error);
        if (check.selected != 0)
            std::cout << "  " << check.chosen_otherwise << " of " << check.selected << " keys chosen otherwise";
        if (!check.holds()) std::cout << "  DIFFERS: " << printable(check.problem);
        std::cout << '\n';
        for (const std::string& sentence : check.not_compared)
            std::cout << "       compared by its attention alone: " << printable(sentence) << '\n';
    }
}

void print_tensors(const larql::verify_report& report) {
    using enum larql::tensor_agreement;
    constexpr std::array<std::pair<larql::tensor_agreement, const char*>, 6> sentences{{
        {identical, "identical: of one type, bit for bit"},
        {equal, "equal: stored otherwise, the same numbers"},
        {rounded, "rounded: each number is the other, to the nearest of its type"},
        {within_step, "within the steps of their formats"},
        {one_added, "gains that one container stores with 1 added"},
        {different, "different"},
    }};
    std::cout << report.tensors.size() << " tensors compared\n";
    auto counts = count_tensors(report);
    for (const auto& [agreement, sentence] : sentences)
        if (counts[agreement] != 0) std::cout << "  " << counts[agreement] << " " << sentence << '\n';
    const larql::tensor_check* worst = nullptr;
    for (const larql::tensor_check& check : report.tensors)
        if (check.holds() && check.numbers_differing != 0 && check.result != one_added &&
            (worst == nullptr || check.largest_in_steps > worst->largest_in_steps))
            worst = &check;
    if (worst != nullptr)
        std::cout << "  largest error of those that agree: " << format("%.3g", worst->largest_error) << ", "
                  << format("%.3g", worst->largest_in_steps) << " of what the formats allow, in " << name_of(*worst)
                  << " (" << worst->type_a << ", " << worst->type_b << ")\n";
    for (const larql::tensor_check& check : report.tensors)
        if (!check.holds())
            std::cout << "DIFFERS: " << name_of(check) << " " << printable(check.problem)
                      << format("; largest error %.3g", check.largest_error) << '\n';
}

void print_text(const larql::verify_report& report) {
    for (const std::string& sentence : report.configuration)
        std::cout << "CONFIGURATION: " << printable(sentence) << '\n';
    print_attention(report);
    print_tensors(report);
    for (const std::string& name : report.only_in_a) std::cout << "ONLY IN THE FIRST: " << printable(name) << '\n';
    for (const std::string& name : report.only_in_b) std::cout << "ONLY IN THE SECOND: " << printable(name) << '\n';
    if (!report.towers.empty())
        std::cout << report.towers.size() << " tensors of what sees or hears not compared, such as "
                  << printable(report.towers.front()) << ": GGUF has these in a file of their own\n";
}

/// A number as JSON has it: infinity is null.
ordered_json json_number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr); }

ordered_json to_json(const larql::verify_report& report) {
    ordered_json out = {{"same", report.holds()},
                        {"configuration", report.configuration},
                        {"attention", ordered_json::array()},
                        {"tensors", ordered_json::array()},
                        {"only_in_first", report.only_in_a},
                        {"only_in_second", report.only_in_b},
                        {"towers", report.towers}};
    for (const larql::attention_check& check : report.attention)
        out["attention"].push_back({{"block", check.block},
                                    {"layer", check.layer},
                                    {"forms", {to_string(check.form_a), to_string(check.form_b)}},
                                    {"tokens", check.tokens},
                                    {"relative_error", json_number(check.error)},
                                    {"selected", check.selected},
                                    {"chosen_otherwise", check.chosen_otherwise},
                                    {"not_compared", check.not_compared},
                                    {"problem", check.problem}});
    for (const larql::tensor_check& check : report.tensors)
        out["tensors"].push_back({{"names", {check.name_a, check.name_b}},
                                  {"types", {check.type_a, check.type_b}},
                                  {"result", to_string(check.result)},
                                  {"numbers", check.elements},
                                  {"numbers_differing", check.numbers_differing},
                                  {"largest_error", json_number(check.largest_error)},
                                  {"largest_in_steps", json_number(check.largest_in_steps)},
                                  {"problem", check.problem}});
    return out;
}

void verify(const arguments& args) {
    larql::program::use_whole_processor();
    larql::thread_pool threads(larql::program::thread_number(args.threads));
    larql::program::reading reading_b = args.reading;
    reading_b.config = args.config_b;
    const larql::checkpoint a = args.reading.open(args.a), b = reading_b.open(args.b);
    const auto blocks = larql::program::parse_blocks(args.layers).value_or(larql::program::block_range{});
    const auto part = larql::program::parse_part(args.part).value();
    larql::verify_report report;
    {
        larql::program::progress_bar bar("comparing MB", false);
        report = larql::verify(a, b,
                               {.layer_begin = blocks.begin,
                                .layer_end = blocks.end,
                                .tolerance = args.tolerance,
                                .part = part.part,
                                .parts = part.parts,
                                .threads = &threads,
                                .progress = [&](std::uint64_t done, std::uint64_t total) {
                                    bar.show(static_cast<std::size_t>(done / 1'000'000),
                                             static_cast<std::size_t>(total / 1'000'000));
                                }});
    }
    std::vector<checksum> sums;
    if (args.checksums) sums = checksums_of(a, b, part, threads);
    if (args.json) {
        ordered_json out = to_json(report);
        for (const auto& [digits, path] : sums) out["sha256"].push_back({{"file", path}, {"digits", digits}});
        std::cout << out.dump(2, ' ', true, ordered_json::error_handler_t::replace) << '\n';
    } else {
        print_text(report);
        for (const auto& [digits, path] : sums) std::cout << digits << "  " << printable(path) << '\n';
    }
    const std::string of_part = part.parts == 1 ? "" : " in part " + args.part;
    if (!report.holds()) {
        std::cout.flush();
        throw std::runtime_error("not the same model" + of_part + ": " + failure_of(report));
    }
    if (!args.json) std::cout << "the same model" << of_part << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    arguments args;
    CLI::App app("Proves that two checkpoints are the same model, whatever their forms and formats.", "larql-verify");
    app.add_option("A", args.a, "a checkpoint")->required();
    app.add_option("B", args.b, "another")->required();
    app.add_option("--layers", args.layers, "A:B, attention blocks from A up to, not including, B, and their layers")
        ->check([](const std::string& text) { return larql::program::parse_blocks(text) ? "" : "expected A:B"; });
    app.add_option("--tolerance", args.tolerance,
                   "of a block's output, relative to its largest magnitude (default 1e-4)")
        ->check(CLI::PositiveNumber);
    app.add_option("--part", args.part, "I/N with I from 1: this of N equal parts of the work, for many machines")
        ->check([](const std::string& text) { return larql::program::parse_part(text) ? "" : "expected I/N"; });
    app.add_option("--threads", args.threads,
                   "threads to use, at most 64 or four per processor; default: one per processor");
    app.add_flag("--checksums", args.checksums, "also print the SHA-256 of every file of both; of parts, a share each");
    app.add_flag("--json", args.json, "machine-readable output");
    args.reading.add_to(app);
    app.add_option("--config-b", args.config_b, "as --config, which is that of A, for B");
    return larql::program::run(app, argc, argv, [&] { verify(args); });
}
