// SPDX-License-Identifier: Apache-2.0
//
// Strict JSON from hostile files, as events: UTF-8, the grammar of RFC 8259, no key twice in one object, nothing after
// the value. A header may be 100 MB of anything, so that the text is looked at once, nothing recurses, and what an
// event gives is not copied. Values, where they are wanted, are nlohmann's: see json.hpp.
#ifndef LARQL_DETAIL_IO_JSON_TEXT_HPP
#define LARQL_DETAIL_IO_JSON_TEXT_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/json_keys.hpp>
#include <larql/detail/io/not_a_checkpoint.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/error.hpp>
#include <larql/printable.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <clocale>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

namespace larql::detail {

/// A value that is no container. A number without fraction and exponent is an integer, if 64 bits hold it.
using json_scalar = std::variant<std::nullptr_t, bool, std::int64_t, std::uint64_t, double, std::string_view>;

inline nlohmann::json to_json(const json_scalar& value) {
    return std::visit([](const auto& v) { return nlohmann::json(v); }, value);
}

/// "null", "boolean", "number" or "string".
inline const char* type_name(const json_scalar& value) {
    constexpr const char* names[] = {"null", "boolean", "number", "number", "number", "string"};
    static_assert(std::variant_size_v<json_scalar> == std::size(names));
    return names[value.index()];
}

/// Its text, or nothing for what is not a string.
inline const std::string_view* text_in(const json_scalar& value) { return std::get_if<std::string_view>(&value); }

class json_reader;

/// Takes a text's events in order. What an event gives is valid until the next.
class json_consumer {
public:
    json_consumer() = default;
    json_consumer(const json_consumer&) = delete;
    json_consumer& operator=(const json_consumer&) = delete;

    /// Reads one JSON text. A byte order mark in front is skipped.
    ///
    /// @param where       of the text's first byte, for errors
    /// @param non_finite  bare NaN, Infinity and -Infinity, which Python writes, are the strings "NaN" and so on
    /// @throws error corrupt_header for what is not JSON, duplicate_name, and whatever the consumer throws
    void read(std::string_view text, const error_where& where, bool non_finite = false);

    virtual void open(bool object) = 0;
    virtual void close() = 0;
    virtual void key(std::string_view name) = 0;
    virtual void scalar(const json_scalar& value) = 0;

protected:
    ~json_consumer() = default;

    /// Fails at the end of what the event was read from.
    [[noreturn]] void fail_here(errc code, const std::string& problem, const std::string& subject = {}) const;

private:
    const json_reader* m_reader = nullptr;
};

/// Turns text into a consumer's events.
class json_reader {
public:
    json_reader(json_consumer& consumer, std::string_view text, const error_where& where, bool non_finite)
        : m_consumer(consumer), m_text(text), m_where(where), m_non_finite(non_finite) {}

    void run() {
        if (const std::size_t nul = m_text.find('\0'); nul != std::string_view::npos) {  // a binary file, most likely
            m_at = nul;
            expected("text");
        }
        if (m_text.starts_with("\xef\xbb\xbf")) m_at = 3;
        value();
        while (!m_is_object.empty()) {
            const bool object = m_is_object.back();
            if (take(object ? '}' : ']')) {
                close(object);
                continue;
            }
            if (!std::exchange(m_just_opened, false) && !take(',')) expected(object ? "',' or '}'" : "',' or ']'");
            if (object) key();
            value();
        }
        if (skip_space() != m_text.size()) expected("the end of the text");
    }

    [[noreturn]] void fail_here(errc code, const std::string& problem, const std::string& subject) const {
        fail_at(code, problem, m_at, subject);
    }

private:
    void value() {
        skip_space();
        const char c = peek();
        if (c == '{' || c == '[') return open(c == '{');
        if (c == '"') return m_consumer.scalar(string());
        if (c == '-' || is_digit(c)) {
            if (m_non_finite && word("-Infinity")) return m_consumer.scalar("-Infinity");
            return m_consumer.scalar(number());
        }
        if (word("true")) return m_consumer.scalar(true);
        if (word("false")) return m_consumer.scalar(false);
        if (word("null")) return m_consumer.scalar(nullptr);
        if (m_non_finite && word("NaN")) return m_consumer.scalar("NaN");
        if (m_non_finite && word("Infinity")) return m_consumer.scalar("Infinity");
        expected("a value");
    }

    void open(bool object) {
        ++m_at;
        m_is_object.push_back(object);
        m_just_opened = true;
        if (object) m_keys.open();
        m_consumer.open(object);
    }

    void close(bool object) {
        if (object)
            if (const std::optional<std::string_view> twice = m_keys.close())
                fail_here(errc::duplicate_name, "key stored twice in one object", std::string(*twice));
        m_is_object.pop_back();
        m_just_opened = false;
        m_consumer.close();
    }

    void key() {
        skip_space();
        if (peek() != '"') expected("a key in quotes");
        const std::string_view name = string();
        m_keys.add(name);
        m_consumer.key(name);
        if (!take(':')) expected("':'");
    }

    /// The next character, 0 at the end of the text.
    [[nodiscard]] char peek(std::size_t ahead = 0) const noexcept {
        return m_at + ahead < m_text.size() ? m_text[m_at + ahead] : '\0';
    }
    static bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

    std::size_t skip_space() noexcept {
        while (m_at < m_text.size() &&
               (m_text[m_at] == ' ' || m_text[m_at] == '\n' || m_text[m_at] == '\r' || m_text[m_at] == '\t'))
            ++m_at;
        return m_at;
    }
    /// Skips white space and a character, if it comes next.
    bool take(char c) noexcept {
        skip_space();
        return take_next(c);
    }
    bool take_next(char c) noexcept {
        if (peek() != c) return false;
        ++m_at;
        return true;
    }
    bool word(std::string_view expected) noexcept {
        if (m_text.substr(m_at, expected.size()) != expected) return false;
        m_at += expected.size();
        return true;
    }

    json_scalar number() {
        const std::size_t begin = m_at;
        const bool negative = take_next('-');
        if (!take_next('0')) digits();
        const std::size_t whole = m_at;
        if (take_next('.')) digits();
        if (take_next('e') || take_next('E')) {
            if (!take_next('+')) take_next('-');
            digits();
        }
        const std::string_view text = m_text.substr(begin, m_at - begin);
        std::int64_t integer = 0;
        std::uint64_t natural = 0;
        double real = 0;
        if (m_at == whole && negative && parsed(text, integer)) return integer;
        if (m_at == whole && !negative && parsed(text, natural)) return natural;
#if defined(__cpp_lib_to_chars)
        if (parsed(text, real)) return real;
#endif
        // What lies outside double's range, and everything for libraries that cannot read double.
        real = read_real(std::string(text));
        if (!std::isfinite(real)) not_json("expected a number within double's range", begin);
        return real;
    }
    void digits() {
        if (!is_digit(peek())) expected("a digit");
        while (is_digit(peek())) ++m_at;
    }
    /// A number too small for double is 0, one too large is infinite.
    static double read_real(std::string text) {
        const char point = *std::localeconv()->decimal_point;
        std::replace(text.begin(), text.end(), '.', point);
        return std::strtod(text.c_str(), nullptr);
    }
    template <class T>
    static bool parsed(std::string_view text, T& out) {
        return std::from_chars(text.data(), text.data() + text.size(), out).ec == std::errc();
    }

    /// The text between quotes: as it stands in the file, or made in m_unescaped.
    std::string_view string() {
        const std::size_t begin = ++m_at;
        skip_plain();
        if (peek() == '"') return m_text.substr(begin, m_at++ - begin);
        m_unescaped.assign(m_text, begin, m_at - begin);
        while (peek() != '"') {
            if (peek() != '\\') expected("a closing quote");
            ++m_at;
            escape();
            const std::size_t piece = m_at;
            skip_plain();
            m_unescaped.append(m_text, piece, m_at - piece);
        }
        ++m_at;
        return m_unescaped;
    }

    /// Skips well-formed UTF-8 up to a quote, an escape, a control character or the end of the text.
    void skip_plain() {
        while (m_at < m_text.size()) {
            const auto c = static_cast<unsigned char>(m_text[m_at]);
            if (c == '"' || c == '\\' || c < 0x20) return;
            const std::size_t length = c < 0x80 ? 1 : utf8_sequence_length(m_text, m_at);
            if (length == 0) not_json("ill-formed UTF-8: byte " + escaped(c, true), m_at);
            m_at += length;
        }
    }

    /// What follows a backslash.
    void escape() {
        constexpr std::string_view names = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        const char c = peek();
        if (c == 'u') return code_point();
        const std::size_t at = names.find(c);
        if (at == std::string_view::npos) expected("an escape");
        m_unescaped += meant[at];
        ++m_at;
    }

    /// \uXXXX, or two of them for what 16 bits do not hold.
    void code_point() {
        const std::size_t begin = m_at - 1;
        std::uint32_t value = utf16();
        if (value >= 0xd800 && value <= 0xdbff && peek() == '\\' && peek(1) == 'u') {
            ++m_at;
            const std::uint32_t low = utf16();
            value = low >= 0xdc00 && low <= 0xdfff ? 0x10000 + ((value & 0x3ffU) << 10 | (low & 0x3ffU)) : 0xd800;
        }
        if (value >= 0xd800 && value <= 0xdfff) not_json("half of a surrogate pair", begin);
        append_utf8(m_unescaped, value);
    }
    std::uint32_t utf16() {
        ++m_at;  // the u
        std::uint32_t value = 0;
        for (int i = 0; i < 4; ++i, ++m_at) {
            constexpr std::string_view hex = "0123456789abcdef0123456789ABCDEF";
            const std::size_t digit = hex.find(peek());
            if (digit == std::string_view::npos) expected("four hexadecimal digits");
            value = value << 4 | static_cast<std::uint32_t>(digit & 15U);
        }
        return value;
    }

    [[noreturn]] void expected(const char* what) const {
        std::string got = "the end of the text";
        if (m_at < m_text.size()) {
            const std::size_t length = std::max<std::size_t>(1, utf8_sequence_length(m_text, m_at));
            got = m_text[m_at] == '\0' ? "a NUL character" + or_what_it_is(head())
                                       : quoted_name(m_text.substr(m_at, length));
        }
        not_json("expected " + std::string(what) + ", got " + got, m_at);
    }

    [[noreturn]] void not_json(const std::string& problem, std::size_t at) const {
        const std::string other = m_text.starts_with('{') ? std::string() : describe_other_file(head());
        if (!other.empty()) fail_at(m_text.empty() ? errc::corrupt_header : errc::bad_magic, "not JSON: " + other, 0);
        const std::string_view before = m_text.substr(0, at);
        const auto line = std::count(before.begin(), before.end(), '\n') + 1;
        const std::size_t column = at - (before.find_last_of('\n') + 1) + 1;  // no line end before it: npos + 1 is 0
        fail_at(errc::corrupt_header, concat({"not JSON: line ", line, ", column ", column, ": ", problem}), at);
    }
    [[nodiscard]] std::string_view head() const { return m_text.substr(0, other_file_head_bytes); }

    [[noreturn]] void fail_at(errc code, const std::string& problem, std::size_t at,
                              const std::string& subject = {}) const {
        error_where where = m_where;
        if (where.offset) *where.offset += at;
        if (!subject.empty()) where.subject = subject;
        fail(code, problem, std::move(where));
    }

    json_consumer& m_consumer;
    std::string_view m_text;
    std::size_t m_at = 0;
    error_where m_where;
    bool m_non_finite;
    std::vector<bool> m_is_object{};  // of the open containers, outermost first
    bool m_just_opened = false;       // the innermost: it has nothing yet
    json_keys m_keys{};
    std::string m_unescaped{};
};

inline void json_consumer::read(std::string_view text, const error_where& where, bool non_finite) {
    json_reader reader(*this, text, where, non_finite);
    m_reader = &reader;
    reader.run();
    m_reader = nullptr;
}

inline void json_consumer::fail_here(errc code, const std::string& problem, const std::string& subject) const {
    m_reader->fail_here(code, problem, subject);
}

}  // namespace larql::detail

#endif
