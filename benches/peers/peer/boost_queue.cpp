// Boost.Interprocess' message_queue behind six C functions. Each returns whether it succeeded.
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstddef>
#include <new>

using boost::interprocess::message_queue;

extern "C" {

message_queue *ringway_boost_create(const char *name, std::size_t messages, std::size_t size) {
    try {
        return new message_queue(boost::interprocess::create_only, name, messages, size);
    } catch (...) {
        return nullptr;
    }
}

message_queue *ringway_boost_open(const char *name) {
    try {
        return new message_queue(boost::interprocess::open_only, name);
    } catch (...) {
        return nullptr;
    }
}

bool ringway_boost_send(message_queue *queue, const void *message, std::size_t size) {
    try {
        queue->send(message, size, 0);
        return true;
    } catch (...) {
        return false;
    }
}

bool ringway_boost_try_send(message_queue *queue, const void *message, std::size_t size) {
    try {
        return queue->try_send(message, size, 0);
    } catch (...) {
        return false;
    }
}

bool ringway_boost_receive(message_queue *queue, void *buffer, std::size_t size) {
    try {
        message_queue::size_type received;
        unsigned priority;
        queue->receive(buffer, size, received, priority);
        return received == size;
    } catch (...) {
        return false;
    }
}

bool ringway_boost_try_receive(message_queue *queue, void *buffer, std::size_t size) {
    try {
        message_queue::size_type received;
        unsigned priority;
        return queue->try_receive(buffer, size, received, priority) && received == size;
    } catch (...) {
        return false;
    }
}

}
