// SPDX-License-Identifier: Apache-2.0
//
// Strict JSON from hostile files, on top of nlohmann's event parser: UTF-8 and grammar as it checks them, and beyond it
// duplicate keys, depth, and NUL characters, which it takes for the end of the text.
#ifndef LARQL_DETAIL_IO_JSON_HPP
#define LARQL_DETAIL_IO_JSON_HPP

#include <larql/detail/io/name_index.hpp>
#include <larql/detail/io/not_a_checkpoint.hpp>
#include <larql/detail/io/utf8.hpp>
#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// What parse_json accepts.
struct json_limits {
    std::size_t max_depth = 64;        ///< containers within each other, the outermost included
    bool drop_deeper = false;          ///< deeper containers become null; otherwise they are an error
    bool tolerate_non_finite = false;  ///< bare NaN, Infinity and -Infinity become the strings "NaN" and so on
};

/// Iterates over text and tells how far the parser has come.
class json_cursor {
public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    json_cursor(const char* at, const char** reached) noexcept : m_at(at), m_reached(reached) {}
    reference operator*() const noexcept { return *m_at; }
    json_cursor& operator++() noexcept {
        *m_reached = ++m_at;
        return *this;
    }
    json_cursor operator++(int) noexcept {
        const json_cursor before = *this;
        ++*this;
        return before;
    }
    friend bool operator==(const json_cursor& a, const json_cursor& b) noexcept { return a.m_at == b.m_at; }
    friend bool operator!=(const json_cursor& a, const json_cursor& b) noexcept { return a.m_at != b.m_at; }

private:
    const char* m_at;
    const char** m_reached;
};

class json_events;

/// Takes a text's events in order. Virtual, so that nlohmann's parser is compiled once, not for each consumer.
class json_consumer {
public:
    json_consumer() = default;
    json_consumer(const json_consumer&) = delete;
    json_consumer& operator=(const json_consumer&) = delete;

    /// Reads one JSON text; the errors' offsets count from `where`.
    void read(std::string_view text, const error_where& where);

    virtual void open(bool object) = 0;
    virtual void close() = 0;
    virtual void key(std::string&& name) = 0;
    virtual void scalar(nlohmann::json&& value) = 0;

protected:
    ~json_consumer() = default;

    /// Fails at the place that the parser has reached.
    [[noreturn]] void fail_here(errc code, const std::string& problem, const std::string& subject = {}) const;

private:
    const json_events* m_events = nullptr;
};

/// Turns nlohmann's events into a consumer's, after checking them. Never recurses.
class json_events {
public:
    json_events(json_consumer& consumer, std::string_view text, const error_where& where)
        : m_consumer(consumer), m_text(text), m_reached(text.data()), m_where(where) {}

    void run() {
        if (const std::size_t nul = m_text.find('\0'); nul != std::string_view::npos) {
            if (nul != 0) refuse_other_file();
            fail_at(errc::corrupt_header, "not JSON: expected text, got a NUL character" + or_what_it_is(head()), nul);
        }
        nlohmann::json::sax_parse(json_cursor(m_text.data(), &m_reached),
                                  json_cursor(m_text.data() + m_text.size(), &m_reached), this);
    }

    // The interface that nlohmann::json::sax_parse asks for.
    bool null() { return give(nullptr); }
    bool boolean(bool value) { return give(value); }
    bool number_integer(nlohmann::json::number_integer_t value) { return give(value); }
    bool number_unsigned(nlohmann::json::number_unsigned_t value) { return give(value); }
    bool number_float(nlohmann::json::number_float_t value, const std::string&) { return give(value); }
    bool string(std::string& value) { return give(std::move(value)); }
    bool binary(nlohmann::json::binary_t&) { return false; }  // JSON text has none
    bool start_object(std::size_t) { return open(true); }
    bool start_array(std::size_t) { return open(false); }
    bool end_object() {
        check_keys();
        m_key_ends.resize(m_first_keys.back());
        m_key_text.resize(m_key_ends.empty() ? 0 : m_key_ends.back());
        m_first_keys.pop_back();
        return end_array();
    }
    bool end_array() {
        m_consumer.close();
        return true;
    }
    bool key(std::string& name) {
        m_key_text += name;
        m_key_ends.push_back(static_cast<std::uint32_t>(m_key_text.size()));
        m_consumer.key(std::move(name));
        return true;
    }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& problem) {
        refuse_other_file();
        std::string_view text = problem.what();
        if (const std::size_t end = text.find("] "); text.starts_with("[json.") && end != std::string_view::npos)
            text.remove_prefix(end + 2);
        if (text.size() > max_problem || !is_utf8(text))
            text = text.substr(0, text.find("; last read"));  // it quotes the offending bytes
        fail_at(errc::corrupt_header, "not JSON: " + std::string(text), position == 0 ? 0 : position - 1);
        return false;
    }

    [[noreturn]] void fail_here(errc code, const std::string& problem, const std::string& subject) const {
        fail_at(code, problem, static_cast<std::size_t>(m_reached - m_text.data()), subject);
    }

private:
    static constexpr std::size_t max_problem = 400;

    void refuse_other_file() const {
        const std::string what = m_text.starts_with('{') ? std::string() : describe_other_file(head());
        if (!what.empty()) fail_at(m_text.empty() ? errc::corrupt_header : errc::bad_magic, "not JSON: " + what, 0);
    }
    [[nodiscard]] std::string_view head() const { return m_text.substr(0, other_file_head_bytes); }

    [[noreturn]] void fail_at(errc code, const std::string& problem, std::size_t position,
                              const std::string& subject = {}) const {
        error_where where = m_where;
        if (where.offset) *where.offset += position;
        if (!subject.empty()) where.subject = subject;
        fail(code, problem, std::move(where));
    }

    template <class T>
    bool give(T&& value) {
        m_consumer.scalar(nlohmann::json(std::forward<T>(value)));
        return true;
    }
    bool open(bool object) {
        if (object) m_first_keys.push_back(static_cast<std::uint32_t>(m_key_ends.size()));
        m_consumer.open(object);
        return true;
    }

    void check_keys() {
        const std::size_t first = m_first_keys.back(), count = m_key_ends.size() - first;
        const auto key_of = [&](std::size_t i) {
            const std::size_t begin = first + i == 0 ? 0 : m_key_ends[first + i - 1];
            return std::string_view(m_key_text).substr(begin, m_key_ends[first + i] - begin);
        };
        const auto refuse = [&](std::size_t i) {
            fail_here(errc::duplicate_name, "key stored twice in one object", std::string(key_of(i)));
        };
        constexpr std::size_t few = 8;  // headers have an object of three keys for each tensor
        if (count > few) {
            if (const auto twice = m_index.build(count, key_of)) refuse(twice->first);
            return;
        }
        for (std::size_t i = 1; i < count; ++i)
            for (std::size_t j = 0; j < i; ++j)
                if (key_of(i) == key_of(j)) refuse(j);
    }

    json_consumer& m_consumer;
    std::string_view m_text;
    const char* m_reached;
    error_where m_where;
    // Keys of all open objects, outermost first, one behind the other: a text may be all keys, and nested objects all
    // else.
    std::string m_key_text{};
    std::vector<std::uint32_t> m_key_ends{};
    name_index m_index{};
    std::vector<std::uint32_t> m_first_keys{};  // per open object, where its keys begin
};

inline void json_consumer::read(std::string_view text, const error_where& where) {
    json_events events(*this, text, where);
    m_events = &events;
    events.run();
    m_events = nullptr;
}

inline void json_consumer::fail_here(errc code, const std::string& problem, const std::string& subject) const {
    m_events->fail_here(code, problem, subject);
}

/// Builds a value from events.
class json_builder final : public json_consumer {
public:
    explicit json_builder(const json_limits& limits) : m_limits(limits) {}

    void open(bool object) override {
        if (m_dropped > 0 || m_open.size() >= m_limits.max_depth) {
            if (!m_limits.drop_deeper)
                fail_here(errc::limit_exceeded, "nested too deep: expected at most " +
                                                    std::to_string(m_limits.max_depth) + " levels, got " +
                                                    std::to_string(m_open.size() + 1));
            if (m_dropped++ == 0) place(nullptr);
            return;
        }
        m_open.push_back(place(object ? nlohmann::json::object() : nlohmann::json::array()));
    }
    void close() override {
        if (m_dropped > 0)
            --m_dropped;
        else
            m_open.pop_back();
    }
    void key(std::string&& name) override {
        if (m_dropped == 0) m_slot = &m_open.back()->get_ref<nlohmann::json::object_t&>()[std::move(name)];
    }
    void scalar(nlohmann::json&& value) override {
        if (m_dropped == 0) place(std::move(value));
    }

    nlohmann::json take() { return std::move(m_root); }

private:
    nlohmann::json* place(nlohmann::json value) {
        nlohmann::json* slot = &m_root;
        if (!m_open.empty()) {
            nlohmann::json& parent = *m_open.back();
            if (parent.is_array()) {
                parent.push_back(nullptr);
                slot = &parent.back();
            } else {
                slot = m_slot;
            }
        }
        *slot = std::move(value);
        return slot;
    }

    json_limits m_limits;
    nlohmann::json m_root{};
    std::vector<nlohmann::json*> m_open{};  // stable: only the innermost container grows
    nlohmann::json* m_slot = nullptr;
    std::size_t m_dropped = 0;
};

/// The text with each bare NaN, Infinity and -Infinity made a string. Python writes them, JSON forbids them.
inline std::string quote_non_finite(std::string_view text) {
    std::string out;
    out.reserve(text.size() + 16);
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string && c == '\\' && i + 1 < text.size()) {
            out += c;
            out += text[++i];
            continue;
        }
        if (c == '"') in_string = !in_string;
        bool replaced = false;
        if (!in_string && (c == 'N' || c == 'I' || c == '-')) {
            for (const std::string_view word : {"NaN", "Infinity", "-Infinity"}) {
                if (replaced || !text.substr(i).starts_with(word)) continue;
                out.append("\"").append(word).append("\"");
                i += word.size() - 1;
                replaced = true;
            }
        }
        if (!replaced) out += c;
    }
    return out;
}

/// Parses one JSON text, strictly: UTF-8, the grammar, no duplicate key, nothing but white space after the value. A
/// byte order mark in front is skipped. Does not recurse.
///
/// @param where  file and, if known, offset of the text's first byte, for errors
/// @throws error corrupt_header, duplicate_name, or limit_exceeded for a value nested deeper than the limits allow
inline nlohmann::json parse_json(std::string_view text, const error_where& where, const json_limits& limits = {}) {
    std::string rewritten;
    error_where place = where;
    if (limits.tolerate_non_finite &&
        (text.find("NaN") != std::string_view::npos || text.find("Infinity") != std::string_view::npos)) {
        rewritten = quote_non_finite(text);
        if (rewritten.size() != text.size()) place.offset.reset();  // positions have moved
        text = rewritten;
    }
    json_builder builder(limits);
    builder.read(text, place);
    return builder.take();
}

/// Appends `text`, which is UTF-8, as a JSON string with its quotes.
inline void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20) {
            constexpr char hex[] = "0123456789abcdef";
            out += "\\u00";
            out += hex[byte >> 4];
            out += hex[byte & 15];
            continue;
        }
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    out += '"';
}

}  // namespace larql::detail

#endif
