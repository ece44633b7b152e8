// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/header_memory.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

using larql::errc;
using larql::error_where;
using larql::detail::header_memory;
using larql::detail::input_file;
using larql::testing::temporary_folder;
using larql::testing::write_file;

namespace {

/// Bytes that differ from place to place.
std::string numbered(std::size_t size) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 2654435761U >> 13);
    return text;
}

bool same(const header_memory& memory, const std::string& text, std::size_t size) {
    return std::equal(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size),
                      reinterpret_cast<const char*>(memory.data()));
}

}  // namespace

TEST_CASE("header_memory: what was read stays where it is and what it is, in headers of every length") {
    const temporary_folder folder;
    // Around the lengths where large pages begin, and where one ends.
    for (const std::size_t size :
         {1U, 4095U, 100'000U, 524'288U, 1'048'576U, 1'048'577U, 2'621'440U, 2'621'441U, 7'000'000U}) {
        CAPTURE(size);
        const std::string text = numbered(size);
        const auto path = write_file(folder / "header.bin", text);
        std::optional<input_file> file = input_file::open(path);
        header_memory memory(*file);
        CHECK(memory.file_size() == size);
        CHECK(memory.loaded() == 0);
        const std::byte* const begin = memory.data();
        for (std::size_t end = 1; end < size; end += size / 5 + 1) {
            memory.load(end, {});
            CHECK(memory.loaded() >= end);
            CHECK(same(memory, text, memory.loaded()));
        }
        memory.load(size, {});
        std::byte last{};
        memory.peek(size - 1, std::span(&last, 1));
        CHECK(last == static_cast<std::byte>(text.back()));
        memory.detach();
        file.reset();
        std::filesystem::resize_file(path, 0);
        const header_memory moved = std::move(memory);
        CHECK(moved.data() == begin);
        CHECK(moved.loaded() == size);
        CHECK(same(moved, text, size));
    }
}

#if defined(__linux__)
TEST_CASE("header_memory: a short header of a long file keeps few addresses, and none afterwards") {
    const auto mapped_pages = [] {
        std::size_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        return pages;
    };
    const temporary_folder folder;
    const auto path = write_file(folder / "long.bin", "");
    std::filesystem::resize_file(path, std::size_t{1} << 33);
    const input_file file = input_file::open(path);
    constexpr std::size_t count = 50, pages_of_4_mebibytes = 1024;
    std::vector<header_memory> all;
    all.reserve(count);
    const std::size_t before = mapped_pages();
    for (std::size_t i = 0; i < count; ++i) {
        all.emplace_back(file);
        all.back().load(100, {});
        all.back().detach();
        CHECK(all.back().loaded() < std::size_t{1} << 17);
    }
    CHECK(mapped_pages() - before < count * pages_of_4_mebibytes);
    all.clear();
    CHECK(mapped_pages() < before + pages_of_4_mebibytes);
}
#endif

TEST_CASE("header_memory: beyond the longest header, and in a file that became shorter, reading fails") {
    const temporary_folder folder;
    const auto path = write_file(folder / "long.bin", "");
    std::filesystem::resize_file(path, larql::detail::max_header_bytes + 1);
    const input_file file = input_file::open(path);
    header_memory memory(file);
    LARQL_CHECK_ERROR(memory.load(larql::detail::max_header_bytes + 1, error_where()), errc::limit_exceeded,
                      "the header is too long");
    std::filesystem::resize_file(path, 1000);
    LARQL_CHECK_ERROR(memory.load(100'000, error_where()), errc::source_changed, "long.bin");
}
