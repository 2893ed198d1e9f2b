// JupyterLab reads a file once, when its tab is opened. This plug-in reads the page "Where am I" again whenever its tab
// comes to the front, so that it says what the checks reported since. It is written as JupyterLab loads prebuilt
// extensions, and so needs no build.
(() => {
  const PAGE = "Where am I.md";
  const plugin = {
    id: "grader-page:plugin",
    autoStart: true,
    activate: (app) => {
      app.shell.currentChanged?.connect((_, { newValue: widget }) => {
        const context = widget?.context;
        if (context?.path === PAGE && context.isReady && !context.model.dirty) {
          context.revert();
        }
      });
    },
  };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["grader-page"] = {
    init: () => {},
    get: async () => () => ({ default: plugin, __esModule: true }),
  };
})();
