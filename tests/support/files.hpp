// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_TESTS_SUPPORT_FILES_HPP
#define LARQL_TESTS_SUPPORT_FILES_HPP

#include <larql/error.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

namespace larql::testing {

/// A folder of its own, removed at the end.
class temporary_folder {
public:
    temporary_folder() {
        static std::atomic<unsigned> number{0};
        const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
        m_path = std::filesystem::temp_directory_path() /
                 ("larql-test-" + std::to_string(now) + "-" + std::to_string(number++));
        if (!std::filesystem::create_directory(m_path)) throw std::runtime_error("no temporary folder");
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(m_path, ignored);
    }

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return m_path; }
    [[nodiscard]] std::filesystem::path operator/(const std::filesystem::path& name) const { return m_path / name; }
    [[nodiscard]] std::size_t file_count() const {
        return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(m_path), {}));
    }

private:
    std::filesystem::path m_path;
};

inline std::filesystem::path write_file(const std::filesystem::path& path, std::string_view bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path.string());
    return path;
}

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(in), {}};
}

/// "<code>: <message>" of the larql::error that `call` throws, or "no error".
template <class Call>
std::string error_of(const Call& call) {
    try {
        (void)call();
    } catch (const error& e) {
        return std::string(to_string(e.code())) + ": " + e.what();
    }
    return "no error";
}

/// What opening a file of these bytes says, as error_of.
template <class File>
std::string open_error(const std::filesystem::path& name, std::string_view bytes) {
    const temporary_folder folder;
    const auto path = write_file(folder / name, bytes);
    return error_of([&] { return File::open(path); });
}

/// True if `text` starts with the code and holds the fragment, in that order.
inline bool is_error(const std::string& text, errc code, std::string_view fragment) {
    return text.starts_with(std::string(to_string(code)) + ": ") && text.find(fragment) != std::string::npos &&
           text.find('\n') == std::string::npos;
}

/// Prints a row of the README's table of what was tried.
inline void print_tried(const std::string& what, const std::string& how_many) {
    std::printf("tried: %s | %s | none |\n", what.c_str(), how_many.c_str());
}

}  // namespace larql::testing

/// Expects a text of error_of to have this code and to hold `fragment`, on one line.
#define LARQL_CHECK_ERROR_TEXT(text, code, fragment)                                                          \
    do {                                                                                                      \
        const std::string found_ = text;                                                                      \
        CHECK_MESSAGE(larql::testing::is_error(found_, code, fragment),                                       \
                      "expected " << to_string(code) << ": ..." << (fragment) << "...\ngot      " << found_); \
    } while (false)

/// Expects `call` to throw a larql::error with this code and a message that holds `fragment`, on one line.
#define LARQL_CHECK_ERROR(call, code, fragment) \
    LARQL_CHECK_ERROR_TEXT(larql::testing::error_of([&] { return call; }), code, fragment)

#endif
