package conformance;

/** A pause before another attempt. */
final class Pause {
  private Pause() {}

  static void milliseconds(long count) {
    try {
      Thread.sleep(count);
    } catch (InterruptedException interrupted) {
      throw new IllegalStateException(interrupted);
    }
  }
}
