// Hadoop's own client as a contestant of benchmarks.source_speed: reads all keys of a list, timed within one JVM.
import java.net.URI;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

public class HadoopRead {
    /** Arguments: URL, file with one path a line, bytes of each, threads, untimed reads at first. */
    public static void main(String[] args) throws Exception {
        FileSystem files = FileSystem.get(new URI(args[0]), new Configuration());
        List<String> paths = Files.readAllLines(java.nio.file.Path.of(args[1]));
        int size = Integer.parseInt(args[2]), threads = Integer.parseInt(args[3]), warm = Integer.parseInt(args[4]);
        read(files, paths.subList(0, Math.min(warm, paths.size())), size, threads);
        long begun = System.nanoTime();
        long total = read(files, paths, size, threads);
        double wall = (System.nanoTime() - begun) / 1e9;
        System.out.printf("{\"objects\": %d, \"bytes\": %d, \"wall\": %f}%n", paths.size(), total, wall);
        System.exit(0);
    }

    static long read(FileSystem files, List<String> paths, int size, int threads) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        List<Future<Integer>> running = new ArrayList<>();
        for (String path : paths) {
            running.add(pool.submit(() -> {
                byte[] buffer = new byte[size];
                try (FSDataInputStream file = files.open(new Path(path))) {
                    file.readFully(0, buffer);
                }
                return buffer.length;
            }));
        }
        long total = 0;
        for (Future<Integer> one : running) {
            total += one.get();
        }
        pool.shutdown();
        return total;
    }
}
