// SPDX-License-Identifier: Apache-2.0
//
// Every file of tests/data cut short and changed in single bytes: each is refused, or read as what it says, in little
// time and memory.
#include <larql/checkpoint.hpp>
#include <larql/detail/gguf/parse.hpp>
#include <larql/detail/safetensors/header.hpp>
#include <larql/gguf.hpp>
#include <larql/safetensors.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#if defined(__linux__)
#include <sys/resource.h>
#endif

using larql::errc;
using larql::tensor_info;
using larql::testing::error_of;
using larql::testing::read_file;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

namespace fs = std::filesystem;
const fs::path data = LARQL_TEST_DATA;

std::vector<fs::path> references(std::string_view ending) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(data))
        if (entry.is_regular_file() && entry.path().string().ends_with(ending)) found.push_back(entry.path());
    std::ranges::sort(found);
    REQUIRE(!found.empty());
    return found;
}

/// What a reader makes of bytes: tensors and where their data begins.
struct content {
    std::vector<tensor_info> tensors;
    std::uint64_t data_offset = 0;
};

void read_gguf(std::string_view bytes, content* out = nullptr) {
    const std::string file = "m.gguf";
    auto found = larql::detail::gguf_parser(std::as_bytes(std::span(bytes)), file).parse();
    if (out != nullptr) *out = {std::move(found.tensors), found.data_offset};
}

void read_safetensors(std::string_view bytes, content* out = nullptr) {
    auto found = larql::detail::parse_safetensors(bytes.size(), "m.safetensors",
                                                  [&](std::uint64_t offset, std::span<std::byte> to) {
                                                      // Checks of doctest would take as long as the parsing.
                                                      if (offset > bytes.size() || to.size() > bytes.size() - offset)
                                                          std::abort();
                                                      std::memcpy(to.data(), bytes.data() + offset, to.size());
                                                  });
    if (out != nullptr) *out = {std::move(found.tensors), found.data_offset};
}

using reader = void (*)(std::string_view, content*);

/// The first byte that no tensor needs.
std::uint64_t end_of(const content& c) {
    std::uint64_t end = c.data_offset;
    for (const tensor_info& t : c.tensors) end = std::max(end, t.offset + t.size_bytes);
    return end;
}

/// Whether all tensors lie within so many bytes, none over another.
bool is_sound(const content& c, std::uint64_t size) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    for (const tensor_info& t : c.tensors) {
        if (t.offset > size || t.size_bytes > size - t.offset || t.offset < c.data_offset) return false;
        if (t.size_bytes != 0) ranges.emplace_back(t.offset, t.offset + t.size_bytes);
    }
    std::ranges::sort(ranges);
    for (std::size_t i = 1; i < ranges.size(); ++i)
        if (ranges[i].first < ranges[i - 1].second) return false;
    return true;
}

/// The sizes to which a file is cut: every one within its header, and some within its data.
std::vector<std::size_t> cuts_of(const content& c, std::uint64_t end, std::size_t data_cuts) {
    std::vector<std::size_t> sizes(static_cast<std::size_t>(std::min(c.data_offset, end)));
    for (std::size_t i = 0; i < sizes.size(); ++i) sizes[i] = i;
    for (std::size_t i = 0; i < data_cuts && c.data_offset < end; ++i)
        sizes.push_back(static_cast<std::size_t>(c.data_offset + (end - c.data_offset) * i / data_cuts));
    return sizes;
}

/// @return  how many cuts were not refused as such; all are added to `tried`
std::size_t count_wrong_cuts(const fs::path& path, reader read, std::size_t& tried) {
    const std::string whole = read_file(path);
    content c;
    read(whole, &c);
    std::size_t wrong = 0;
    // Each cut of a safetensors file parses all of its JSON; and what transformers computed is no checkpoint.
    const std::size_t data_cuts = path.filename() == "reference.safetensors" ? 100 : 1000;
    for (const std::size_t size : cuts_of(c, end_of(c), data_cuts)) {
        ++tried;
        const std::string text = error_of([&] { return read(std::string_view(whole).substr(0, size), nullptr), 0; });
        if (!larql::testing::is_error(text, errc::truncated, " @ ")) {
            if (wrong++ == 0) MESSAGE(path << " cut to " << size << " bytes: " << text);
        }
    }
    return wrong;
}

/// One bit of every byte of the header changed, another one from byte to byte, or all of them.
/// @return  how many were read as something that cannot be; all are added to `tried`
std::size_t count_wrong_flips(const fs::path& path, reader read, bool all_bits, std::size_t& tried) {
    std::string bytes = read_file(path);
    content whole;
    read(bytes, &whole);
    std::size_t wrong = 0;
    tried += whole.data_offset;
    for (std::size_t at = 0; at < whole.data_offset; ++at) {
        const char before = bytes[at];
        bytes[at] = static_cast<char>(before ^ (all_bits ? 0xff : 1 << at % 8));
        content c;
        const std::string text = error_of([&] { return read(bytes, &c), 0; });
        if (text.find('\n') != text.npos || (text == "no error" && !is_sound(c, bytes.size()))) {
            if (wrong++ == 0) MESSAGE(path << " changed at " << at << ": " << text);
        }
        bytes[at] = before;
    }
    return wrong;
}

/// Opens a model and computes with what it says.
void use(const fs::path& path) {
    const auto model = larql::checkpoint::open(path);
    const auto layer = model.attention(0, model.config().form);
    const larql::tensor<float, 2> hidden = xt::ones<float>({std::size_t{2}, model.config().hidden_size});
    (void)layer.forward(hidden);
}

double seconds_of(const fs::path& path, std::string& text) {
    const auto start = std::chrono::steady_clock::now();
    text = error_of([&] { return use(path), 0; });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

#if defined(__SANITIZE_ADDRESS__)
constexpr double allowed_seconds = 10.0;
#else
constexpr double allowed_seconds = 1.0;
#endif

/// Every so-many-th byte of a file's beginning changed, and the model used as it then is.
void check_uses(const fs::path& path, std::size_t beginning, std::size_t step, int& refused, int& used) {
    const std::string whole = read_file(path);
    for (std::size_t at = 0; at < std::min(beginning, whole.size()); at += step) {
        std::string bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << (at / step) % 8);
        write_file(path, bytes);
        std::string text;
        const double seconds = seconds_of(path, text);
        CAPTURE(path);
        CAPTURE(at);
        CHECK_MESSAGE(seconds < allowed_seconds, seconds);
        CHECK_MESSAGE(text.find('\n') == text.npos, text);
        ++(text == "no error" ? used : refused);
    }
    write_file(path, whole);
}

}  // namespace

TEST_CASE("damaged references: every file cut at each byte of its header and at many of its data is refused") {
    std::size_t tried = 0;
    for (const fs::path& path : references(".gguf")) CHECK(count_wrong_cuts(path, read_gguf, tried) == 0);
    for (const fs::path& path : references(".safetensors")) CHECK(count_wrong_cuts(path, read_safetensors, tried) == 0);
    larql::testing::print_tried(
        "each file of tests/data cut at every byte of its header and at 1,000 of its data (computed "
        "results: 100)",
        std::to_string(tried) + " cuts");
}

TEST_CASE("damaged references: a changed byte in a header is an error or another sound file") {
    std::size_t tried = 0;
    for (const fs::path& path : references(".gguf")) CHECK(count_wrong_flips(path, read_gguf, false, tried) == 0);
    CHECK(count_wrong_flips(data / "gguf/deepseek_v3-bf16.gguf", read_gguf, true, tried) == 0);
    for (const char* name : {"hf/deepseek_v3/model.safetensors", "hf/deepseek_v3_fp8/model.safetensors"})
        for (const bool all_bits : {false, true})
            CHECK(count_wrong_flips(data / name, read_safetensors, all_bits, tried) == 0);
    larql::testing::print_tried("one bit, or all, of a byte of a header changed, at every byte",
                                std::to_string(tried) + " files");
}

TEST_CASE("damaged references: a model with a changed byte is refused in one line or computed, within a second") {
    const temporary_folder folder;
    int refused = 0, used = 0;
    fs::copy_file(data / "gguf/deepseek_v3-bf16.gguf", folder / "m.gguf");
    check_uses(folder / "m.gguf", 6000, 23, refused, used);
    fs::copy(data / "hf/deepseek_v3_sharded", folder / "m", fs::copy_options::recursive);
    for (const char* name : {"config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors"})
        check_uses(folder / "m" / name, 4000, 17, refused, used);
    CHECK(refused > 100);
    CHECK(used > 100);
    larql::testing::print_tried(
        "a bit of a header, index or config.json changed, and the model opened and computed with: "
        "within 1 s, all within 100 MB",
        std::to_string(refused) + " refused, " + std::to_string(used) + " computed");
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
TEST_CASE("damaged references: all of the above took less than 100 MB") {
    rusage used{};
    REQUIRE(::getrusage(RUSAGE_SELF, &used) == 0);
    CHECK(used.ru_maxrss < 100'000);  // kilobytes
}
#endif
