// Declarations of the part of Foundation that driver.m calls, as in Apple's
// headers, for checking it off macOS.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef unsigned long NSUInteger;
typedef long NSInteger;
typedef _Bool BOOL; // as on arm64
#define YES ((BOOL)1)
#define NO ((BOOL)0)
#define nil ((void *)0)
#define API_AVAILABLE_MACOS(v) __attribute__((availability(macos, introduced = v)))

__attribute__((objc_root_class)) @interface NSObject
+ (instancetype)new;
- (instancetype)init;
@end

@interface NSString : NSObject
+ (instancetype)stringWithUTF8String:(const char *)s;
- (BOOL)isEqualToString:(NSString *)s;
@property(readonly) const char *UTF8String;
@end

@interface NSArray<__covariant Item> : NSObject
+ (instancetype)arrayWithObjects:(const Item *)items count:(NSUInteger)n;
@end

@interface NSURL : NSObject
+ (instancetype)fileURLWithPath:(NSString *)path;
@end

typedef NSString *NSErrorDomain;
@interface NSError : NSObject
@property(readonly) NSString *localizedDescription;
@property(readonly) NSErrorDomain domain;
@property(readonly) NSInteger code;
@end
